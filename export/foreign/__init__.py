"""An ONNX classifier of any origin: its precisions and images, compared and packed into a bundle."""
