"""Hyperbolic functions: Sinh."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node


def sinh(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy cosh(x)."""
    return {0: emit("Mul", dy, emit("Cosh", node.inputs[0]))}
