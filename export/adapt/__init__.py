"""Anyone's ONNX classifier brought behind edgeproof's interface: images in [0, 1] to logits, in any batch."""
