"""ONNX graphs: nodes and shapes, clean-up, and constant folding."""
