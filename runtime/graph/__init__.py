"""An ONNX file as its bytes tell it: what it computes in, where it steps, which files it names; without onnx."""
