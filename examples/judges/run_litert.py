"""Judges a TFLite model with LiteRT: run_litert.py MODEL.tflite. The model reads one image, [1, H, W, C], at a time.

Images for an int8 model are quantised with its scale and zero point. A model that reads uint8 gets the bytes unchanged.
"""

import sys

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from judge import serve

interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
IN_BYTES = takes["dtype"] is np.uint8


def one(image):
    """Return the logits of one image [H, W, C]."""
    scale, zero = takes["quantization"]
    if takes["dtype"] is np.int8:
        image = np.clip(np.rint(image / scale) + zero, -128, 127)
    interpreter.set_tensor(takes["index"], image[None].astype(takes["dtype"]))
    interpreter.invoke()
    logits = interpreter.get_tensor(gives["index"])[0]
    scale, zero = gives["quantization"]
    return (logits.astype(np.float32) - zero) * scale if scale else logits


def open_runner(image, classes):
    """Return the function that answers a batch, image by image, because such models are compiled for one image."""
    return lambda images: np.stack([one(each) for each in images.transpose(0, 2, 3, 1)])


serve(
    open_runner,
    name="litert",
    version=ai_edge_litert.__version__,
    device="cpu",
    images="uint8" if IN_BYTES else "float32",
    quantised=takes["dtype"] is not np.float32,
)
