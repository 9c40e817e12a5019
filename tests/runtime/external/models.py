"""The linear classifier of tests/tiny.py in the formats of other runners, written by their own schemas."""

import struct

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as tfl

FLOAT32, INT8, INT32 = tfl.TensorType.FLOAT32, tfl.TensorType.INT8, tfl.TensorType.INT32


def tflite(weight, bias, ranges=None):
    """Return a TFLite model: images [1, 4, 4, 1] to logits [1, K] by one fully connected layer.

    Args:
        weight: float32 [K, 16].
        bias: float32 [K].
        ranges: of images and logits, (scale, zero point) each: an int8 model; None for float32.

    """
    classes = len(bias)
    model = tfl.ModelT()
    model.version, model.description = 3, "linear"
    model.buffers = [tfl.BufferT()]
    model.operatorCodes = [tfl.OperatorCodeT()]
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if ranges else 1
    graph = tfl.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = [], [0], [3]

    def tensor(name, shape, kind, data=None, quantisation=None):
        made = tfl.TensorT()
        made.name, made.shape, made.type = name, list(shape), kind
        if data is not None:
            model.buffers.append(tfl.BufferT())
            model.buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(model.buffers) - 1
        if quantisation:
            made.quantization = tfl.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantisation[0]], [quantisation[1]]
        graph.tensors.append(made)

    if ranges:
        images, logits = ranges
        step = float(np.abs(weight).max() / 127)
        tensor("images", (1, 4, 4, 1), INT8, quantisation=images)
        tensor("weight", weight.shape, INT8, np.rint(weight / step).astype(np.int8), (step, 0))
        tensor("bias", bias.shape, INT32, np.rint(bias / (step * images[0])).astype(np.int32), (step * images[0], 0))
        tensor("logits", (1, classes), INT8, quantisation=logits)
    else:
        tensor("images", (1, 4, 4, 1), FLOAT32)
        tensor("weight", weight.shape, FLOAT32, weight)
        tensor("bias", bias.shape, FLOAT32, bias)
        tensor("logits", (1, classes), FLOAT32)
    layer = tfl.OperatorT()
    layer.inputs, layer.outputs = [0, 1, 2], [3]
    layer.builtinOptionsType = tfl.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = tfl.FullyConnectedOptionsT()
    graph.operators = [layer]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ncnn(weight, bias):
    """Return the param and the bin file of an ncnn model: in0 to out0 by one inner product."""
    classes, size = weight.shape
    layers = (
        "Input in0 0 1 in0",
        f"InnerProduct linear 1 1 in0 out0 0={classes} 1=1 2={classes * size}",
    )
    param = "\n".join(("7767517", f"{len(layers)} {len(layers)}", *layers, ""))
    return param.encode(), struct.pack("<I", 0) + weight.astype("<f4").tobytes() + bias.astype("<f4").tobytes()
