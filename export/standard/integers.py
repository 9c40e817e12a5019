"""Operations on integers, as ONNX's QOperator form and ONNX Runtime's own domain have them, by Q/DQ.

Each takes its operands as integers with their scale and zero point, and answers so: the same as to dequantise, to
compute in floating point, and to quantise, but for the rounding of sums beyond 24 bits, and of halves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from export.graph.constants import DEQUANTIZE, QUANTIZE
from export.standard import blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.graph.graph import Emitter
    from export.standard.part import Part, Writing

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operations."""
STANDARD = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)
"""What the standard's Q/DQ of opset 18 to 20 take."""
LIMITS: dict[int, tuple[int, int]] = {
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
}
"""Further integers that ONNX Runtime's own quantise to."""
FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)
"""Integers of weights alone."""
CONVOLUTION = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def dequantize(emit: Emitter, part: Part) -> str | None:
    """Dequantise integers of 16 bits too."""
    kind, axis = part.kind(0), part.attribute("axis", 1)
    if part.attribute("block_size", 0):
        return None
    if kind in STANDARD:
        return emit(DEQUANTIZE, *_given(part, 0, 1, 2), axis=axis)
    if kind in FOUR_BITS:
        return _stored(emit, part, axis)
    if kind not in LIMITS:
        return None
    scale, zero = _along(emit, part, 1, axis), _along(emit, part, 2, axis)
    if scale is None:
        return None
    q = emit.cast(part.input(0))
    return emit("Mul", emit("Sub", q, emit.cast(zero)) if zero else q, scale)


def quantize(emit: Emitter, part: Part) -> str | None:
    """Quantise to integers of 16 bits too: round, shift, clip and cast."""
    kind, axis = part.kind(2) or TensorProto.UINT8, part.attribute("axis", 1)
    if part.attribute("block_size", 0):
        return None
    if kind in STANDARD:
        return emit(QUANTIZE, *_given(part, 0, 1, 2), axis=axis)
    if kind not in LIMITS:
        return None
    scale, zero = _along(emit, part, 1, axis), _along(emit, part, 2, axis)
    if scale is None or zero is None:
        return None
    rounded = emit("Add", emit("Round", emit("Div", part.input(0), scale)), emit.cast(zero))
    low, high = LIMITS[kind]
    return emit("Cast", emit("Clip", rounded, emit.real(low), emit.real(high)), to=kind)


def kept(op: str) -> Writing:
    """Q or DQ of 4 or 16 bits, which ONNX has from opset 21 on, as ONNX Runtime's own of the same name.

    Weights in blocks are dequantised by rows (`export.standard.blocks`), of 8 bits too.
    """

    def writing(emit: Emitter, part: Part) -> str | None:
        zero = part.kind(2) if part.input(2) else None
        kind = zero or part.attribute("output_dtype", 0) or (part.kind(0) if op == DEQUANTIZE else None)
        own = kind in (*LIMITS, *FOUR_BITS)
        if part.attribute("block_size", 0):
            return blocks.dequantize(emit, part, MICROSOFT if own else "") if op == DEQUANTIZE else None
        if not own:
            return None
        return emit(op, *_given(part, 0, 1, 2), domain=MICROSOFT, **part.attributes("axis"))

    return writing


def convolution(emit: Emitter, part: Part) -> str | None:
    """QLinearConv: x, w and y with their scales and zero points, and a bias of x's and w's scales together."""
    last = part.attribute("channels_last", 0)
    rank = part.rank(3)
    if rank is None:
        return None
    x, w = _real(emit, part, 0), _real(emit, part, 3, axis=0)
    if last:
        x = emit("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])
    operands = [x, w]
    if part.input(8):
        operands.append(emit(DEQUANTIZE, part.input(8), emit("Mul", part.input(1), part.input(4)), axis=0))
    y = emit("Conv", *operands, **part.attributes(*CONVOLUTION))
    if last:
        y = emit("Transpose", y, perm=[0, *range(2, rank), 1])
    return _back(emit, part, y, 6)


def matmul(emit: Emitter, part: Part) -> str | None:
    """QLinearMatMul: a, b and y with their scales and zero points; b's may be one a column."""
    if not _is_single(part, 1):
        return None
    return _back(emit, part, emit("MatMul", _real(emit, part, 0), _real(emit, part, 3, axis=-1)), 6)


def gemm(emit: Emitter, part: Part) -> str | None:
    """QGemm: a and b, a bias of alpha times their scales, and y, in floating point where that has no scale."""
    if not _is_single(part, 1):
        return None
    alpha, transposed = part.attribute("alpha", 1.0), part.attribute("transB", 0)
    operands = [_real(emit, part, 0), _real(emit, part, 3, axis=0 if transposed else 1)]
    if part.input(6):
        scale = emit("Mul", part.input(1), part.input(4))
        if alpha != 1:
            scale = emit("Mul", scale, emit.real(alpha))
        operands.append(emit(DEQUANTIZE, part.input(6), scale, axis=0))
    y = emit("Gemm", *operands, alpha=alpha, transA=part.attribute("transA", 0), transB=transposed)
    return _back(emit, part, y, 7) if part.input(7) else y


def convolution_of_integers(emit: Emitter, part: Part) -> str | None:
    """ConvInteger, by a Conv of whole numbers."""
    rank = part.rank(1)
    if rank is None:
        return None
    w = emit.cast(part.input(1))
    if part.input(3):
        zero = emit.cast(part.input(3))
        w = emit("Sub", w, zero if part.rank(3) == 0 else emit("Reshape", zero, emit.integers([-1] + [1] * (rank - 1))))
    return _whole(emit, emit("Conv", shifted(emit, part, 0, 2), w, **part.attributes(*CONVOLUTION)))


def matmul_of_integers(emit: Emitter, part: Part) -> str | None:
    """MatMulInteger, by a MatMul of whole numbers; b's zero point may be one a column."""
    if not _is_single(part, 2) and part.rank(2) != part.rank(0):
        return None
    return _whole(emit, emit("MatMul", shifted(emit, part, 0, 2), shifted(emit, part, 1, 3)))


def matmul_to_real(emit: Emitter, part: Part) -> str | None:
    """MatMulIntegerToFloat: the product of a and b dequantised, and a bias."""
    scale = emit("Mul", part.input(2), part.input(3))
    product = emit("MatMul", shifted(emit, part, 0, 4), shifted(emit, part, 1, 5))
    y = emit("Mul", product, scale)
    return emit("Add", y, part.input(6)) if part.input(6) else y


def binary(op: str) -> Writing:
    """QLinearAdd and QLinearMul."""
    return lambda emit, part: _back(emit, part, emit(op, _real(emit, part, 0), _real(emit, part, 3)), 6)


def unary(op: str, *names: str) -> Writing:
    """QLinearSigmoid and QLinearLeakyRelu."""
    return lambda emit, part: _back(emit, part, emit(op, _real(emit, part, 0), **part.attributes(*names)), 3)


def softmax(emit: Emitter, part: Part) -> str | None:
    """QLinearSoftmax: over one axis, or as before opset 13 over all from `axis` on."""
    rank, axis = part.rank(0), part.attribute("axis", -1)
    if rank is None or (part.attribute("opset", 13) < 13 and axis % rank != rank - 1):
        return None
    return _back(emit, part, emit("Softmax", _real(emit, part, 0), axis=axis), 3)


def global_average_pool(emit: Emitter, part: Part) -> str | None:
    """QLinearGlobalAveragePool, with channels first or last."""
    return _pooled(emit, part, lambda x: emit("GlobalAveragePool", x))


def average_pool(emit: Emitter, part: Part) -> str | None:
    """QLinearAveragePool, with channels first or last."""
    names = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
    return _pooled(emit, part, lambda x: emit("AveragePool", x, **part.attributes(*names)))


def concat(emit: Emitter, part: Part) -> str | None:
    """QLinearConcat: y's scale and zero point first, then each operand with its own."""
    operands = [_real(emit, part, position) for position in range(2, len(part.inputs), 3)]
    return _back(emit, part, emit("Concat", *operands, axis=part.attribute("axis")), 0)


def where(emit: Emitter, part: Part) -> str | None:
    """QLinearWhere."""
    return _back(emit, part, emit("Where", part.input(0), _real(emit, part, 1), _real(emit, part, 4)), 7)


def _stored(emit: Emitter, part: Part, axis: int) -> str | None:
    """Return weights that are stored in four bits as the numbers that they stand for; None: nothing else has so few."""
    values, scale, zero = (part.constant(position) for position in range(3))
    if values is None or scale is None or (part.input(2) and zero is None):
        return None
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis % values.ndim] = -1
    shift = np.zeros(()) if zero is None else zero.astype(np.float32).reshape(shape if zero.size > 1 else ())
    whole = values.astype(np.float32) - shift.astype(np.float32)
    reals = whole * scale.astype(np.float32).reshape(shape if scale.size > 1 else ())
    return emit("Identity", emit.real(reals))


def _pooled(emit: Emitter, part: Part, pool: Callable[[str], str]) -> str | None:
    rank = part.rank(0)
    x = _real(emit, part, 0)
    if not part.attribute("channels_last", 0):
        return _back(emit, part, pool(x), 3)
    if rank is None:
        return None
    pooled = pool(emit("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)]))
    return _back(emit, part, emit("Transpose", pooled, perm=[0, *range(2, rank), 1]), 3)


def _real(emit: Emitter, part: Part, position: int, axis: int = 1) -> str:
    """Dequantise an operand by the scale and zero point that follow it."""
    return emit(DEQUANTIZE, *_given(part, position, position + 1, position + 2), axis=axis)


def _back(emit: Emitter, part: Part, y: str, position: int) -> str:
    """Quantise by the scale and zero point at `position`; without one it is 0, of bytes."""
    return emit(QUANTIZE, y, *_given(part, position, position + 1))


def _given(part: Part, *positions: int) -> list[str]:
    return [name for name in map(part.input, positions) if name]


def shifted(emit: Emitter, part: Part, position: int, zero: int) -> str:
    """Return an operand of integers less its zero point, where it has one, in floating point."""
    value = emit.cast(part.input(position))
    return emit("Sub", value, emit.cast(part.input(zero))) if part.input(zero) else value


def _whole(emit: Emitter, y: str) -> str:
    return emit("Cast", emit("Round", y), to=TensorProto.INT32)


def _along(emit: Emitter, part: Part, position: int, axis: int) -> str | None:
    """Return an input of one number, or one for each place along an axis, so that it broadcasts; None: it cannot."""
    rank, own = part.rank(0), part.rank(position)
    if not part.input(position) or own == 0:
        return part.input(position) or None
    if rank is None or own != 1:
        return None
    value = part.constant(position)
    if value is not None and value.size == 1:
        return emit("Reshape", part.input(position), emit.integers(np.zeros(0)))
    shape = [1] * rank
    shape[axis % rank] = -1
    return emit("Reshape", part.input(position), emit.integers(shape))


def _is_single(part: Part, position: int) -> bool:
    """Whether an operand has one scale or zero point: for its rows there is no standard form."""
    value = part.constant(position)
    return not part.input(position) or part.rank(position) == 0 or (value is not None and value.size == 1)
