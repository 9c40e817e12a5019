"""The engines that run an artifact, all behind one Session: ONNX Runtime, TensorRT, OpenVINO, an external process."""
