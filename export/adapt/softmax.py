"""Finds a softmax or sigmoid at the end of a classifier, and cuts it off if the predictions stay the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from export.graph.floating import REAL
from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.adapt.batch import FreedGraph

    Rows = np.ndarray[Any, np.dtype[Any]]

MOVING = ("Identity", "Flatten", "Reshape", "Squeeze", "Dropout", "Cast")
"""Operations after a softmax that change no number."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
ROUNDED = ("Softmax", "LogSoftmax", "Sigmoid", "QLinearSoftmax", "QLinearSigmoid")
"""Operations whose answers, rounded to integers, tie where their operands do not."""

JOINING = ("Concat", "QLinearConcat", "Neg", "Unsqueeze")
SHIFTING = ("Add", "Sub")
"""What makes [1 - p, p] of p: these two with a constant."""


def before_softmax(graph: FreedGraph, output: str, classes: int) -> tuple[str, str | None]:
    """Return the input of a softmax, log-softmax or sigmoid at the end of the graph, and which of them it is.

    Sound because each keeps the order of the classes: a softmax to the last bits, a sigmoid where its ties are kept
    (`TYING`). A softmax must be over the classes and nothing else. Of one number for two classes see `OF_ONE_NUMBER`.

    Args:
        graph: what is known of the values.
        output: the one with a number for each class.
        classes: how many; 1 where the number is of the second of two.

    Raises:
        BadModel: it is rounded to integers, which decides answers, or its ties cannot be kept.

    """
    makers = {name: node for node in graph.nodes for name in node.output}
    _refuse_rounded(graph, makers, output)
    name, maker = _behind_moving(makers, output)
    if classes == 1:
        if maker is not None and maker.op_type == "Sigmoid" and not maker.domain:
            return maker.input[0], "one sigmoid"
        return output, ONE_LOGIT
    if maker is None or maker.domain:
        return output, None
    if maker.op_type == "Concat" and classes == 2:
        return _before_pair(graph, makers, maker) or (output, None)
    if maker.op_type == "Sigmoid":
        _refuse_other_ties(graph, name)
        return maker.input[0], TYING
    if maker.op_type in ("Softmax", "LogSoftmax"):
        axis = next((helper.get_attribute_value(a) for a in maker.attribute if a.name == "axis"), -1)
        return (maker.input[0], maker.op_type) if _over_classes(graph, name, axis, classes) else (output, None)
    if maker.op_type == "Div":
        return _before_written_softmax(graph, makers, maker, classes) or (output, None)
    return output, None


def _refuse_rounded(graph: FreedGraph, makers: Any, output: str) -> None:
    """Raise `BadModel` where a softmax or sigmoid at the end is quantised: its steps decide, and hide the gradient."""
    kind = _rounded_end(graph, makers, output)
    if kind is not None:
        raise BadModel(
            f"the model ends in a quantised {kind}: its rounding decides between classes, and hides the gradient",
            hint=f"quantise the model without its {kind}, so that it ends at its logits",
        )


def _rounded_end(graph: FreedGraph, makers: Any, name: str, *, rounded: bool = False) -> str | None:
    """Return the softmax or sigmoid of which a value is made by rounding; also where it is joined, as [1 - p, p]."""
    maker = makers.get(name)
    if maker is None:
        return None
    rounded = rounded or maker.op_type in ROUNDING or maker.op_type.startswith("QLinear")
    if maker.op_type in ROUNDED:
        return maker.op_type.removeprefix("QLinear") if rounded else None
    if maker.op_type in (*MOVING, *ROUNDING):
        operands = maker.input[:1] if _keeps_numbers(maker) else []
    elif maker.op_type in SHIFTING:
        operands = maker.input if any(_is_stored(graph, makers, operand) for operand in maker.input) else []
    else:
        operands = maker.input if maker.op_type in JOINING else []
    found = (_rounded_end(graph, makers, operand, rounded=rounded) for operand in operands)
    return next(filter(None, found), None)


def _is_stored(graph: FreedGraph, makers: Any, name: str) -> bool:
    """Whether a value is a constant, or one that is stored as integers."""
    return graph.value(_behind_moving(makers, name, ROUNDING)[0]) is not None


def _refuse_other_ties(graph: FreedGraph, name: str) -> None:
    """Raise `BadModel` where a sigmoid of several classes is not in float32, in which it would be run.

    float64 is brought to float32, and ONNX Runtime, which has no float16 on the CPU, takes the casts about it away.
    """
    if graph.kind(name) != TensorProto.FLOAT:
        kind = REAL.get(graph.kind(name), "another type")
        raise BadModel(
            f"the model ends in a Sigmoid in {kind}: it gives several classes the same answer where float32 would not",
            hint="end the model at its logits",
        )


def _behind_moving(makers: Any, name: str, moving: tuple[str, ...] = MOVING) -> tuple[str, Any]:
    """Return the value whose numbers `name` has, and the node that made it; None where it is the input."""
    maker = makers.get(name)
    while maker is not None and maker.op_type in moving and _keeps_numbers(maker):
        name, maker = maker.input[0], makers.get(maker.input[0])
    return name, maker


def _keeps_numbers(node: Any) -> bool:
    """Whether one of `MOVING` is ONNX's own and casts to no integers; those of `ROUNDING` may be of any domain."""
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), TensorProto.FLOAT)
    return node.op_type in ROUNDING or (not node.domain and to in REAL)


def _before_pair(graph: FreedGraph, makers: Any, pair: Any) -> tuple[str, str] | None:
    """Recognise [1 - p, p] and [p, 1 - p] of one p = sigmoid(z)."""
    sources = [_behind_moving(makers, name, (*MOVING, "Unsqueeze")) for name in pair.input]
    for place, (probability, sigmoid) in enumerate(sources):
        if len(sources) != 2 or sigmoid is None or sigmoid.op_type != "Sigmoid":
            continue
        _, rest = sources[1 - place]
        if rest is None or rest.op_type != "Sub":
            continue
        one, (taken, _) = graph.value(rest.input[0]), _behind_moving(makers, rest.input[1])
        if taken == probability and one is not None and np.all(one == 1):
            return sigmoid.input[0], "[1 - p, p]" if place else "[p, 1 - p]"
    return None


def _before_written_softmax(graph: FreedGraph, makers: Any, divide: Any, classes: int) -> tuple[str, str] | None:
    """Recognise exp(z) / sum(exp(z)) with the maximum taken off z: without, exp overflows and the answer is NaN."""
    exponential, total = (makers.get(name) for name in divide.input)
    if exponential is None or total is None or (exponential.op_type, total.op_type) != ("Exp", "ReduceSum"):
        return None
    axes = graph.value(total.input[1]) if len(total.input) > 1 else None
    if total.input[0] != exponential.output[0] or axes is None or axes.size != 1:
        return None
    axis = int(axes.item())
    sound = _over_classes(graph, divide.output[0], axis, classes)
    return (exponential.input[0], "Softmax") if sound and _is_shifted(graph, makers, exponential, axis) else None


def _is_shifted(graph: FreedGraph, makers: Any, exponential: Any, axis: int) -> bool:
    """Whether an Exp is of z - max(z) over an axis."""
    shifted = makers.get(exponential.input[0])
    if shifted is None or shifted.op_type != "Sub":
        return False
    largest = makers.get(shifted.input[1])
    if largest is None or largest.op_type != "ReduceMax" or largest.input[0] != shifted.input[0]:
        return False
    axes = graph.value(largest.input[1]) if len(largest.input) > 1 else None
    rank = len(graph.sizes(shifted.input[0]) or ())
    return axes is not None and rank > 0 and [int(each) % rank for each in axes.ravel()] == [axis % rank]


def _over_classes(graph: FreedGraph, name: str, axis: int, classes: int) -> bool:
    sizes = graph.sizes(name)
    return sizes is not None and sizes[axis] == classes and math.prod(sizes) == sizes[0] * classes


def _log_softmax(z: Rows) -> Rows:
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _sigmoid(z: Rows) -> Rows:
    with np.errstate(over="ignore"):  # of exp(-z) where the result is 0
        return np.asarray(1 / (1 + np.exp(-z)))


def _same(outputs: Rows) -> Rows:
    return outputs


@dataclass(frozen=True)
class Cut:
    """What may be cut off the end of a model, or read from it.

    Args:
        words: what is said of it.
        own: the model's own output [B, ...], of the packed graph's logits [B, K].
        scores: a number for each class [B, K], of the model's own output; the largest is its answer.

    """

    words: str
    own: Callable[[Rows], Rows]
    scores: Callable[[Rows], Rows] = _same


WHOLE = "the {} at its end cut off: it hides the gradient and keeps the order of the classes"
TYING = "Sigmoid"
"""The cut whose own answers tie where the logits do not: see `export.graph.ties`."""
ONE_LOGIT = "one logit"
"""The cut of which nothing in the graph says that it is one: see `export.foreign.original.refuse_probability`."""
CUTS: dict[str, Cut] = {
    "LogSoftmax": Cut(WHOLE.format("LogSoftmax"), _log_softmax),
    TYING: Cut(
        "the Sigmoid at its end cut off: it hides the gradient; where its largest answers are equal, so are the logits",
        _sigmoid,
    ),
    "Softmax": Cut(WHOLE.format("Softmax"), lambda z: np.exp(_log_softmax(z))),
    ONE_LOGIT: Cut(
        "its one number z taken for the logit of the second class, positive where that is the answer: the logits are "
        "[0, z]",
        lambda z: z[:, 1:] - z[:, :1],
        lambda z: np.concatenate([np.zeros_like(z), z], axis=1),
    ),
    "one sigmoid": Cut(
        "the Sigmoid of one number z at its end cut off, the probability of the second class: the logits are [0, z]",
        lambda z: _sigmoid(z[:, 1:] - z[:, :1]),
        lambda p: np.concatenate([1 - p, p], axis=1),
    ),
    "[1 - p, p]": Cut(
        "the Sigmoid of one number z at its end cut off, and [1 - p, p] made of it: the logits are [0, z]",
        lambda z: np.exp(_log_softmax(z)),
    ),
    "[p, 1 - p]": Cut(
        "the Sigmoid of one number z at its end cut off, and [p, 1 - p] made of it: the logits are [z, 0]",
        lambda z: np.exp(_log_softmax(z)),
    ),
}
"""By name."""
OF_ONE_NUMBER = {
    ONE_LOGIT: (0.0, 1.0), "one sigmoid": (0.0, 1.0), "[1 - p, p]": (0.0, 1.0), "[p, 1 - p]": (1.0, 0.0)
}  # fmt: skip
"""Those of one number for two classes: what it is multiplied by for the logit of each."""


def ties(outputs: Rows) -> int:
    """Return in how many rows [B, K] the largest number is there more than once."""
    return int(((outputs == outputs.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
