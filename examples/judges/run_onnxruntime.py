"""Judges an ONNX graph with ONNX Runtime: run_onnxruntime.py MODEL.onnx, from float32 [B, C, H, W] to logits [B, K]."""

import sys

import onnxruntime
from judge import serve


def open_runner(image, classes):
    """Return the function that answers a batch."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda images: session.run(None, {entry.name: images})[0]


serve(open_runner, name="onnxruntime", version=onnxruntime.__version__, device="cpu")
