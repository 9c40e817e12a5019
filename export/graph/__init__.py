"""An ONNX graph: its nodes and shapes, how it is cleaned up, what is constant in it."""
