"""A softmax at the end of a classifier: found, and cut off where that keeps the order of the classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.foreign.batch import FreedGraph

    Rows = np.ndarray[Any, np.dtype[Any]]

MOVING = ("Identity", "Flatten", "Reshape", "Squeeze", "Dropout", "Cast")
"""Operations after a softmax that change no number."""


def before_softmax(graph: FreedGraph, output: str, classes: int) -> tuple[str, str | None]:
    """Return the value that a softmax, log-softmax or sigmoid at the very end was made of, and which it was.

    Sound because each keeps the order of the classes, but where it rounds several to one number. A softmax
    must be over the classes and nothing else.
    """
    makers = {name: node for node in graph.nodes for name in node.output}
    name, maker = output, makers.get(output)
    while maker is not None and maker.op_type in MOVING:
        name, maker = maker.input[0], makers.get(maker.input[0])
    if maker is None or maker.domain:
        return output, None
    if maker.op_type == "Sigmoid":
        return maker.input[0], "Sigmoid"
    if maker.op_type in ("Softmax", "LogSoftmax"):
        axis = next((helper.get_attribute_value(a) for a in maker.attribute if a.name == "axis"), -1)
        return (maker.input[0], maker.op_type) if _over_classes(graph, name, axis, classes) else (output, None)
    if maker.op_type == "Div":
        return _before_written_softmax(graph, makers, maker, classes) or (output, None)
    return output, None


def _before_written_softmax(graph: FreedGraph, makers: Any, divide: Any, classes: int) -> tuple[str, str] | None:
    """Recognise exp(z) / sum(exp(z)), with or without a maximum taken off z."""
    exponential, total = (makers.get(name) for name in divide.input)
    if exponential is None or total is None or (exponential.op_type, total.op_type) != ("Exp", "ReduceSum"):
        return None
    axes = graph.value(total.input[1]) if len(total.input) > 1 else None
    if total.input[0] != exponential.output[0] or axes is None or axes.size != 1:
        return None
    sound = _over_classes(graph, divide.output[0], int(axes.item()), classes)
    return (exponential.input[0], "Softmax") if sound else None


def _over_classes(graph: FreedGraph, name: str, axis: int, classes: int) -> bool:
    sizes = graph.sizes(name)
    return sizes is not None and sizes[axis] == classes and math.prod(sizes) == sizes[0] * classes


def _log_softmax(z: Rows) -> Rows:
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _sigmoid(z: Rows) -> Rows:
    with np.errstate(over="ignore"):  # of exp(-z) where the result is 0
        return np.asarray(1 / (1 + np.exp(-z)))


CUTS: dict[str, Callable[[Rows], Rows]] = {
    "LogSoftmax": _log_softmax,
    "Sigmoid": _sigmoid,
    "Softmax": lambda z: np.exp(_log_softmax(z)),
}
"""What may be cut off the end of a model, and how its own output follows from the logits."""


def ties(outputs: Rows) -> int:
    """Return in how many rows [B, K] the largest number is there more than once."""
    return int(((outputs == outputs.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
