"""Anyone's ONNX classifier, its precisions and its images, compared and packed into a bundle."""
