"""Matrix products: Gemm, MatMul and Einsum, against weights or between activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.broadcast import sum_to

if TYPE_CHECKING:
    from export.graph.graph import Array, Emitter, Gradients, Node, Shape


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


def einsum(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate a product by its equation: an operand's gradient is the sum of dy and the others over its axes."""
    equation = node.attribute("equation", b"").decode().replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    gradients = {}
    for i in node.active:
        others = terms[:i] + terms[i + 1 :]
        known = set("".join([out, *others]))
        if not arrow or "." in equation or len(set(terms[i])) < len(terms[i]) or not known >= set(terms[i]):
            raise node.refused(f"the equation {equation!r}")
        operands = [dy, *node.inputs[:i], *node.inputs[i + 1 :]]
        gradients[i] = emit("Einsum", *operands, equation=f"{','.join([out, *others])}->{terms[i]}")
    return gradients


def along(emit: Emitter, value: str, rank: int, axis: int, matrix: Array) -> str:
    """Multiply a constant matrix [m, n] along one axis: its m numbers become n."""
    if axis == rank - 1:
        return emit("MatMul", value, emit.real(matrix))
    if axis == rank - 2:
        return emit("MatMul", emit.real(matrix.T), value)
    swapped = list(range(rank))
    swapped[axis], swapped[-1] = swapped[-1], swapped[axis]
    product = emit("MatMul", emit("Transpose", value, perm=swapped), emit.real(matrix))
    return emit("Transpose", product, perm=swapped)


def _gemm(emit: Emitter, a: str, b: str, transposed_a: int, transposed_b: int, alpha: float) -> str:
    return emit("Gemm", a, b, transA=transposed_a, transB=transposed_b, alpha=alpha)


def _stacked(out: Shape, operand: Shape) -> Shape:
    """Return the shape of an operand's gradient before the stacks it was broadcast over are summed."""
    return (*out[:-2], *operand[-2:])


def _transposed(emit: Emitter, name: str, rank: int) -> str:
    return emit("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
