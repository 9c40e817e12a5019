"""Operations of ONNX that are several in one: Attention, products, norms of windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.standard.bodies import body

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.graph.graph import Emitter
    from export.standard.part import Part

REST = ("is_causal", "softcap", "qk_matmul_output_mode", "softmax_precision")
"""Attributes of an Attention that is more than softmax(q k') v."""


def attention(emit: Emitter, part: Part) -> str | list[str] | None:
    """Attention: softmax(scale q k' + mask) v, an image and a head at a time; other forms by ONNX's definition.

    That looks for rows without any number, which a softmax here never has: it would be a staircase on the way.
    """
    sizes = [part.sizes(position) for position in range(3)]
    heads, plain = _heads(part), not any(part.attribute(name, 0) for name in REST)
    more = len([name for name in part.proto.output if name]) > 1 or any(map(bool, part.inputs[4:]))
    masked = bool(part.input(3)) and part.kind(3) != part.kind(0)
    if not plain or more or masked or None in sizes or heads is None:
        return body(emit, part)
    rank, (q, k, v) = len(sizes[0] or ()), part.inputs[:3]
    wide = (sizes[0] or ())[-1]
    if wide is None:
        return body(emit, part)
    if rank == 3:
        q, k, v = (_apart(emit, name, heads) for name in (q, k, v))
        wide //= heads
    scale = part.attribute("scale", 0.0) or wide**-0.5
    scores = emit("MatMul", emit("Mul", q, emit.real(scale)), emit("Transpose", k, perm=[0, 1, 3, 2]))
    if part.input(3):
        scores = emit("Add", scores, part.input(3))
    y = emit("MatMul", emit("Softmax", scores, axis=-1), v)
    if rank == 4:
        return y
    return emit("Reshape", emit("Transpose", y, perm=[0, 2, 1, 3]), emit.integers([0, 0, -1]))


def _heads(part: Part) -> int | None:
    """Return how many heads there are; None where keys have another number of them than queries."""
    if part.rank(0) == 3:
        heads: int = part.attribute("q_num_heads", 0)
        return heads if heads == part.attribute("kv_num_heads", 0) else None
    sizes = [part.sizes(position) for position in (0, 1)]
    first, second = (size[1] if size is not None and len(size) == 4 else None for size in sizes)
    return first if first == second else None


def _apart(emit: Emitter, value: str, heads: int) -> str:
    """Bring [B, length, heads * size] to [B, heads, length, size]."""
    return emit("Transpose", emit("Reshape", value, emit.integers([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def product(emit: Emitter, part: Part) -> str | None:
    """ReduceProd, by halves: the product of all others is a slope that no zero spoils, as y / x would be."""
    sizes = part.sizes(0)
    given = part.constant(1) if part.input(1) else np.zeros(0, np.int64)
    if sizes is None or given is None:
        return None
    axes = sorted({int(axis) % len(sizes) for axis in given})
    if not axes and not part.attribute("noop_with_empty_axes", 0):
        axes = list(range(len(sizes)))
    y = part.input(0)
    for axis in axes:
        size = sizes[axis]
        if size is None:
            return None
        while size > 1:
            half, odd = divmod(size, 2)
            pieces = [half, half, 1][: 2 + odd]
            first, second, *rest = emit.many("Split", [y, emit.integers(pieces)], len(pieces), axis=axis)
            y, size = emit("Mul", first, second), half + odd
            if rest:
                y = emit("Concat", y, *rest, axis=axis)
    if not axes:
        return emit("Identity", y)
    return y if part.attribute("keepdims", 1) else emit("Squeeze", y, emit.integers(axes))


def lp_pool(emit: Emitter, part: Part) -> str | None:
    """LpPool: the p-norm of each window, the sum by a depthwise convolution with ones."""
    sizes, kernel = part.sizes(0), part.attribute("kernel_shape")
    if sizes is None or sizes[1] is None or part.attribute("ceil_mode", 0):
        return None
    ones = emit.real(np.ones((sizes[1], 1, *kernel)))
    window = part.attributes("auto_pad", "dilations", "kernel_shape", "pads", "strides")
    return _norm(emit, part, lambda powers: emit("Conv", powers, ones, group=sizes[1], **window))


def global_lp_pool(emit: Emitter, part: Part) -> str | None:
    """GlobalLpPool: the p-norm of each channel."""
    rank = part.rank(0)
    if rank is None:
        return None
    axes = emit.integers(list(range(2, rank)))
    return _norm(emit, part, lambda powers: emit("ReduceSum", powers, axes, keepdims=1))


def _norm(emit: Emitter, part: Part, summed: Callable[[str], str]) -> str:
    x, p = part.input(0), part.attribute("p", 2)
    if p == 2:
        return emit("Sqrt", summed(emit("Mul", x, x)))
    if p == 1:
        return summed(emit("Abs", x))
    return emit("Pow", summed(emit("Pow", emit("Abs", x), emit.real(p))), emit.real(1 / p))
