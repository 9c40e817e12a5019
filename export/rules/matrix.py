"""Matrix products: Gemm and MatMul, against weights or between activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.rules.broadcast import sum_to

if TYPE_CHECKING:
    from export.graph import Emitter, Node, Shape
    from export.rules import Gradients


def gemm(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = alpha op(a) op(b) + beta c, op being an optional transposition."""
    a, b = node.inputs[:2]
    transposed_a, transposed_b = node.attribute("transA", 0), node.attribute("transB", 0)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    gradients = {}
    if 0 in node.active:
        gradients[0] = (
            _gemm(emit, b, dy, transposed_b, 1, alpha)
            if transposed_a
            else _gemm(emit, dy, b, 0, 1 - transposed_b, alpha)
        )
    if 1 in node.active:
        gradients[1] = (
            _gemm(emit, dy, a, 1, transposed_a, alpha)
            if transposed_b
            else _gemm(emit, a, dy, 1 - transposed_a, 0, alpha)
        )
    if 2 in node.active:
        scaled = dy if beta == 1 else emit("Mul", dy, emit.real(beta))
        gradients[2] = sum_to(emit, scaled, node.output_shape, node.shape(2))
    return gradients


def matmul(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a b over stacks of matrices: da = dy b', db = a' dy, summed over broadcast stacks."""
    a, b = node.inputs
    left, right, out = node.shape(0), node.shape(1), node.output_shape
    if len(left) < 2 or len(right) < 2:
        raise node.refused("an operand has one dimension")
    gradients = {}
    if 0 in node.active:
        product = emit("MatMul", dy, _transposed(emit, b, len(right)))
        gradients[0] = sum_to(emit, product, _stacked(out, left), left)
    if 1 in node.active:
        product = emit("MatMul", _transposed(emit, a, len(left)), dy)
        gradients[1] = sum_to(emit, product, _stacked(out, right), right)
    return gradients


def _gemm(emit: Emitter, a: str, b: str, transposed_a: int, transposed_b: int, alpha: float) -> str:
    return emit("Gemm", a, b, transA=transposed_a, transB=transposed_b, alpha=alpha)


def _stacked(out: Shape, operand: Shape) -> Shape:
    """Return the shape of an operand's gradient before the stacks it was broadcast over are summed."""
    return (*out[:-2], *operand[-2:])


def _transposed(emit: Emitter, name: str, rank: int) -> str:
    return emit("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
