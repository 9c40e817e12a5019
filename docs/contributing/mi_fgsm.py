"""The momentum iterative fast gradient sign method (Dong et al., CVPR 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from array_api_compat import array_namespace

from runtime.attacks.geometry import project
from runtime.attacks.losses import cross_entropy
from runtime.attacks.oracle import Found, Oracle, Points, select
from runtime.attacks.passes import Passes

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise


def mi_fgsm(oracle: Oracle, points: Points, eps: float, noise: Noise, *, steps: int, decay: float) -> Found:
    """Take `steps` signed steps of size eps / steps along the velocity: v = decay v + g / |g|_1, with the gradient g.

    It draws no noise.
    """
    xp = array_namespace(points.x)
    found, x, velocity = Found(points, eps), points.x, xp.zeros_like(points.x)
    for _ in range(steps):
        z, _, gradient = oracle.loss_gradient(points, x, cross_entropy(points.one_hot))
        standing = found.judge(oracle, points, x, hint=z)
        if not standing.any():
            return found
        points, x, gradient, velocity = (points.rows(standing), *(select(a, standing) for a in (x, gradient, velocity)))
        norm = xp.sum(xp.abs(gradient), axis=(1, 2, 3), keepdims=True)
        velocity = decay * velocity + gradient / xp.where(norm > 0, norm, xp.ones_like(norm))
        x = project(x + eps / steps * xp.sign(velocity), points.x, eps)
    found.judge(oracle, points, x)
    return found


def mi_fgsm_passes(*, steps: int, decay: float) -> Passes:
    """Return the most passes that one image costs: a gradient per step, and a forward pass per judged point."""
    return Passes(forwards=steps + 1, gradients=steps)
