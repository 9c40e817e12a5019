"""Adapts any ONNX classifier to edgeproof's interface: images in [0, 1] to logits, in batches of any size."""
