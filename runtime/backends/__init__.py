"""What runs an artifact: ONNX Runtime and TensorRT behind one Session."""
