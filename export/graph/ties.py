"""The ties of a sigmoid, kept in the logits that it was made of.

A sigmoid keeps the order of its operands but where it rounds: in float32 all above 17 or so become 1, all under -18 the
same small number, and of equal numbers a classifier answers the first. The logits must answer so too, and must lead an
attack: above the knee where the sigmoid is 1 their slope is small, so that what counts is to lift another class there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, helper

from export.graph.graph import Emitter
from export.graph.passes import drop_unread
from runtime.session import LOGITS

if TYPE_CHECKING:
    from typing import Any

    from onnx import NodeProto

    from export.graph.graph import Node

TIES = "back/ties"
"""How the names of these nodes begin."""
FAR = 1e38
"""Multiplies a difference of two outputs: it leaves none that a sigmoid answers in reach of the logits."""
NEXT = 2.0**-22
"""By this share of the largest logit others stay under it: a float32 or two."""


LEAK = 0.1
"""The slope of logits above the knee."""


def keep_ties(logits: str, outputs: str, kind: np.dtype[Any]) -> Emitter:
    """Return what makes `logits` of z: the first largest is where the first largest output is.

    Those whose outputs are the largest, and equal, get the largest of their z. All others keep their z, but under it.

    Args:
        logits: z, float32 [B, K].
        outputs: p = sigmoid(z), float32 [B, K].
        kind: what p is rounded to.

    """
    emit = Emitter(np.dtype(np.float32), TIES)
    knee = -math.log(float(np.finfo(kind).eps) / 4)  # where 1 - p is half the spacing of numbers under 1
    above = emit("Relu", emit("Sub", logits, emit.real(knee)))
    logits = emit("Sub", logits, emit("Mul", above, emit.real(1 - LEAK)))
    behind = emit("Mul", emit("Sub", _largest(emit, outputs), outputs), emit.real(FAR))
    top = _largest(emit, emit("Sub", logits, behind))
    gap = emit("Add", emit("Mul", emit("Abs", top), emit.real(NEXT)), emit.real(np.finfo(np.float32).tiny))
    others = emit("Min", logits, emit("Sub", top, gap))
    emit.rename(emit("Max", others, emit("Sub", top, behind)), LOGITS)
    return emit


def _largest(emit: Emitter, rows: str) -> str:
    """Return the largest of each row [B, K]: [B, 1].

    Not by a TopK, which would count as a choice on the way; nor by ReduceMax: see `Emitter.equal`.
    """
    return emit("Flatten", emit("GlobalMaxPool", emit("Unsqueeze", rows, emit.integers([1, 2]))), axis=1)


def led_by_logits(node: Node) -> tuple[int, ...]:
    """Return which operands of a Max or Min lead on: of those that keep ties the logits alone."""
    return node.active[:1] if keeps_ties(node.proto) else node.active


def keeps_ties(node: NodeProto) -> bool:
    """Whether a node is one of `keep_ties`."""
    return node.name.startswith(TIES)


def without_ties(model: ModelProto) -> ModelProto:
    """Return a model whose logits are z again; the same object where they were."""
    first = next((node for node in model.graph.node if keeps_ties(node)), None)
    if first is None:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if LOGITS in node.output:
            node.CopyFrom(helper.make_node("Identity", first.input[:1], [LOGITS]))
    drop_unread(copy)
    return copy
