"""Anyone's ONNX classifier brought behind edgeproof's interface."""
