"""The losses of an attack as part of the graph: from logits to a value and a cotangent, one row per image.

Formulas: cross-entropy; margin max_{j != y} z_j - z_y; DLR = margin / (z_p1 - z_p3 + 1e-12); targeted DLR =
(z_t - z_y) / (z_p1 - (z_p3 + z_p4) / 2 + 1e-12), p sorting the logits descending (Croce & Hein 2020). Attacks
maximise all of them. Ties go to the first index, as in argmax.

Sums over classes are matrix products with ones, because ReduceSum on ONNX Runtime's CPU gives a row other bits at
another position in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from runtime.session import LossSpec

if TYPE_CHECKING:
    from export.graph.graph import Emitter

WEIGHTS, LABEL, TARGET, COTANGENT = (field.name for field in fields(LossSpec))
HEADS = 4
"""Columns of `weights`: cross-entropy, margin, DLR, targeted DLR; however many a model's classes allow."""

BEYOND = 1e30
"""Subtracted from a logit so that no maximum and no exponential sees it."""


@dataclass(frozen=True)
class Head:
    """One loss: its value [B, 1], and the derivative of the value by the logits [B, K]."""

    value: str
    cotangent: str


def emit_losses(emit: Emitter, logits: str, classes: int) -> tuple[str, str]:
    """Emit the weighted losses of `logits` [B, K].

    Returns:
        The names of the value [B] and of the cotangent [B, K], its derivative by the logits.

    """
    heads = _heads(emit, logits, classes)
    weights = emit.many("Split", [WEIGHTS], HEADS, axis=1, num_outputs=HEADS)
    value = _row_sum(emit, emit("Mul", COTANGENT, logits), classes)
    cotangent = COTANGENT
    for weight, head in zip(weights, heads, strict=False):
        value = emit("Add", value, emit("Mul", weight, head.value))
        cotangent = emit("Add", cotangent, emit("Mul", weight, head.cotangent))
    return emit.reshape(value, (None,)), cotangent


def _heads(emit: Emitter, logits: str, classes: int) -> list[Head]:
    rivals = emit("Sub", logits, emit("Mul", LABEL, emit.real(BEYOND)))
    own = _row_sum(emit, emit("Mul", logits, LABEL), classes)
    margin = _margin(emit, rivals, own, classes)
    heads = [_cross_entropy(emit, logits, rivals, own, classes), margin]
    if classes >= 3:
        top = _top(emit, logits, min(classes, 4), classes)
        heads.append(_ratio(emit, margin, _spread(emit, top, (1, 0, -1, 0), classes)))
    if classes >= 4:
        gap = _target_gap(emit, logits, own, classes)
        heads.append(_ratio(emit, gap, _spread(emit, top, (1, 0, -0.5, -0.5), classes)))
    return heads


def _cross_entropy(emit: Emitter, logits: str, rivals: str, own: str, classes: int) -> Head:
    """-log softmax(z)_y, written so that neither it nor its derivative vanishes on confident images.

    With m = logsumexp of the other logits - z_y, the value is max(m, 0) + log(1 + exp(-|m|)). The derivative is p_j,
    and at the label -(sum of the other p_j): in float32 p_y - 1 is 0 where the loss is under 6e-8, in PyTorch too.

    logsumexp(r) = max(r) - max(log softmax(r)): ONNX Runtime's Log on the CPU gives a row other bits at another place
    in the batch, its LogSoftmax does not.
    """
    m = emit("Sub", emit("Sub", emit.largest(rivals), emit.largest(emit("LogSoftmax", rivals, axis=1))), own)
    value = emit("Add", emit("Relu", m), _log_of_one_more(emit, emit("Exp", emit("Neg", emit("Abs", m)))))

    others = emit("Mul", emit("Softmax", logits, axis=1), emit("Sub", emit.real(1), LABEL))
    at_label = emit("Mul", LABEL, _row_sum(emit, others, classes))
    return Head(value, emit("Sub", others, at_label))


def _log_of_one_more(emit: Emitter, e: str) -> str:
    """Return log(1 + e) for 0 <= e <= 1, [B, 1], as exact for the smallest e as for 1.

    log(1 + e) = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...), s = e / (2 + e) (Abramowitz & Stegun 4.1.27). s^2 is at
    most 1/9, so that each term adds a digit to base 9: as many as the type holds. ONNX has Atanh, but ONNX Runtime no
    kernel of it for CUDA.
    """
    terms = np.arange(1, math.ceil(-math.log(np.finfo(emit.dtype).eps, 9)))
    s = emit("Div", e, emit("Add", e, emit.real(2)))
    powers = emit("Pow", emit("Mul", s, s), emit.real(terms[None]))
    more = emit("MatMul", powers, emit.real(1 / (2 * terms[:, None] + 1)))
    return emit("Mul", emit("Add", s, s), emit("Add", more, emit.real(1)))


def _margin(emit: Emitter, rivals: str, own: str, classes: int) -> Head:
    rival = emit.one_hot(emit("ArgMax", rivals, axis=1, keepdims=0), classes)
    return Head(emit("Sub", emit.largest(rivals), own), emit("Sub", rival, LABEL))


def _target_gap(emit: Emitter, logits: str, own: str, classes: int) -> Head:
    target = _row_sum(emit, emit("Mul", logits, TARGET), classes)
    return Head(emit("Sub", target, own), emit("Sub", TARGET, LABEL))


def _ratio(emit: Emitter, gap: Head, spread: Head) -> Head:
    """Return gap / spread: (gap' - value spread') / spread."""
    value = emit("Div", gap.value, spread.value)
    change = emit("Sub", gap.cotangent, emit("Mul", value, spread.cotangent))
    return Head(value, emit("Div", change, spread.value))


def _top(emit: Emitter, logits: str, count: int, classes: int) -> Head:
    """Return the `count` largest logits [B, count], descending, and their indices, one-hot [B, count, K]."""
    largest, indices = emit.many("TopK", [logits, emit.integers([count])], 2, axis=1)
    return Head(largest, emit.one_hot(indices, classes))


def _spread(emit: Emitter, top: Head, factors: tuple[float, ...], classes: int) -> Head:
    """Return factors . (z_p1, z_p2, ...) + 1e-12 and its derivative."""
    row = np.asarray(factors)[None, : min(classes, len(factors))]
    value = emit("Add", emit("MatMul", top.value, emit.real(row.T)), emit.real(1e-12))
    derivative = emit("MatMul", emit.real(row), top.cotangent)
    return Head(value, emit.reshape(derivative, (None, classes)))


def _row_sum(emit: Emitter, rows: str, classes: int) -> str:
    """Sum [B, K] to [B, 1]."""
    return emit("MatMul", rows, emit.real(np.ones((classes, 1))))
