"""Facts read from the bytes of an ONNX file, without the onnx package: types, staircases, references to other files."""
