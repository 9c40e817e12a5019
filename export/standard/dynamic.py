"""Quantisation by the range of what is quantised, as quantize_dynamic writes it: of each image by its own.

ONNX takes the range of the whole batch, which is that of an image where it is alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from export.standard.integers import shifted

if TYPE_CHECKING:
    from export.graph.graph import Emitter
    from export.standard.part import Part

LARGEST = 255.0
SMALLEST = 1e-30
"""A scale where all numbers are 0."""


def quantize(emit: Emitter, part: Part) -> list[str] | None:
    """DynamicQuantizeLinear: bytes, their scale and their zero point."""
    parts = _quantized(emit, part)
    if parts is None:
        return None
    q, scale, zero = parts
    return [emit("Cast", q, to=TensorProto.UINT8), scale, emit("Cast", zero, to=TensorProto.UINT8)]


def matmul(emit: Emitter, part: Part) -> str | None:
    """DynamicQuantizeMatMul: a, b quantised with its scale and zero point, and a bias."""
    parts = _quantized(emit, part)
    if parts is None:
        return None
    q, scale, zero = parts
    product = emit("MatMul", emit("Sub", q, zero), shifted(emit, part, 1, 3))
    y = emit("Mul", product, emit("Mul", scale, part.input(2)))
    return emit("Add", y, part.input(4)) if part.input(4) else y


def _quantized(emit: Emitter, part: Part) -> tuple[str, str, str] | None:
    """Return integers, scale and zero point as floating-point numbers."""
    rank = part.rank(0)
    if rank is None or rank < 2:
        return None
    x, nothing = part.input(0), emit.real(0)
    axes = emit.integers(list(range(1, rank)))
    high = emit("Max", emit("ReduceMax", x, axes, keepdims=1), nothing)
    low = emit("Min", emit("ReduceMin", x, axes, keepdims=1), nothing)
    scale = emit("Max", emit("Div", emit("Sub", high, low), emit.real(LARGEST)), emit.real(SMALLEST))
    zero = emit("Round", emit("Clip", emit("Neg", emit("Div", low, scale)), nothing, emit.real(LARGEST)))
    q = emit("Add", emit("Round", emit("Div", x, scale)), zero)
    return emit("Clip", q, nothing, emit.real(LARGEST)), scale, zero
