"""Operations of ONNX that are several in one: Attention without mask, past and groups of heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.standard.bodies import body

if TYPE_CHECKING:
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
