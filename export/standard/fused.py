"""Operations that ONNX Runtime makes of several, when it saves an optimised model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from export.standard.integers import CONVOLUTION

if TYPE_CHECKING:
    from export.graph.graph import Emitter
    from export.standard.part import Part

TANH_CUBIC = 0.044715
"""Of Gelu's approximation by Tanh (Hendrycks & Gimpel 2016)."""
SIMPLE = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish")
"""Activations without parameters."""


def convolution(emit: Emitter, part: Part, weight: str = "") -> str | None:
    """FusedConv: Conv, by `weight` where that is given, the sum with another value, an activation."""
    operands = (part.input(0), weight or part.input(1), part.input(2))
    y = emit("Conv", *_trimmed(operands), **part.attributes(*CONVOLUTION))
    if part.input(3):
        y = emit("Add", y, part.input(3))
    return _activated(emit, y, part.attribute("activation", b""), part.attribute("activation_params", []))


def gemm(emit: Emitter, part: Part) -> str | None:
    """FusedGemm: Gemm and an activation."""
    y = emit("Gemm", *_trimmed(part.inputs), **part.attributes("alpha", "beta", "transA", "transB"))
    given = [part.attribute(name) for name in ("activation_alpha", "activation_beta")]
    parameters = [value for value in given if value is not None]
    return _activated(emit, y, part.attribute("activation", b""), parameters)


def matmul(emit: Emitter, part: Part) -> str | None:
    """FusedMatMul: a product of transposed stacks, times alpha."""
    operands = []
    for position, letter in enumerate("AB"):
        rank = part.rank(position)
        if part.attribute(f"transBatch{letter}", 0):
            return None
        name = part.input(position)
        if part.attribute(f"trans{letter}", 0):
            if rank is None:
                return None
            if rank > 1:
                name = emit("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
        operands.append(name)
    y, alpha = emit("MatMul", *operands), part.attribute("alpha", 1.0)
    return y if alpha == 1 else emit("Mul", y, emit.real(alpha))


def gelu(emit: Emitter, part: Part) -> str | None:
    """Gelu, and BiasGelu, whose second input is added first: x Phi(x)."""
    x = _biased(emit, part)
    below = emit("Erf", emit("Mul", x, emit.real(1 / math.sqrt(2))))
    return emit("Mul", emit("Mul", x, emit.real(0.5)), emit("Add", below, emit.real(1)))


def fast_gelu(emit: Emitter, part: Part) -> str | None:
    """FastGelu: Gelu approximated by Tanh, of the sum with an optional bias."""
    x = _biased(emit, part)
    root = math.sqrt(2 / math.pi)
    cube = emit("Mul", emit("Mul", x, x), emit.real(root * TANH_CUBIC))
    t = emit("Tanh", emit("Mul", x, emit("Add", cube, emit.real(root))))
    return emit("Mul", emit("Mul", x, emit.real(0.5)), emit("Add", t, emit.real(1)))


def quick_gelu(emit: Emitter, part: Part) -> str | None:
    """QuickGelu: x sigmoid(alpha x)."""
    x = part.input(0)
    return emit("Mul", x, emit("Sigmoid", emit("Mul", x, emit.real(part.attribute("alpha", 1.702)))))


def skip_layer_normalization(emit: Emitter, part: Part) -> list[str] | None:
    """SkipLayerNormalization: input, skip, gamma, beta, bias; the fourth output is the sum that is normalised."""
    total = emit("Add", part.input(0), part.input(1))
    if part.input(4):
        total = emit("Add", total, part.input(4))
    scale = [part.input(2), *_trimmed(part.inputs[3:4])]
    y = emit("LayerNormalization", total, *scale, axis=-1, epsilon=part.attribute("epsilon", 1e-12))
    return [y, "", "", total]


def _biased(emit: Emitter, part: Part) -> str:
    return emit("Add", part.input(0), part.input(1)) if part.input(1) else part.input(0)


def _activated(emit: Emitter, y: str, activation: bytes, parameters: list[float]) -> str | None:
    name = activation.decode()
    if not name:
        return y
    if name in SIMPLE:
        return emit(name, y)
    if name == "LeakyRelu":
        return emit(name, y, **dict(zip(["alpha"], parameters, strict=False)))
    if name == "HardSigmoid":
        return emit(name, y, **dict(zip(["alpha", "beta"], parameters, strict=False)))
    if name == "Clip" and len(parameters) == 2:
        return emit(name, y, *map(emit.real, parameters))
    return None


def _trimmed(names: tuple[str, ...]) -> list[str]:
    """Return the names without those at the end that are not given."""
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept
