"""Projected gradient descent (Madry et al. 2018), L-infinity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace, device

from runtime.attacks.geometry import project
from runtime.attacks.losses import cross_entropy
from runtime.attacks.oracle import Found, Oracle, Points, select
from runtime.attacks.passes import Passes
from runtime.session import LossSpec

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise

Loss = Callable[[Any], LossSpec]
"""Returns the loss to raise, for one-hot labels [B, K]."""
Slope = Callable[[Points, Any, LossSpec], tuple[Any, Any, Any]]
"""A function like `Oracle.loss_gradient`, for `climb` to follow. If its logits are None, all iterates are judged."""


def pgd(oracle: Oracle, points: Points, eps: float, noise: Noise, *, steps: int, step: float) -> Found:
    """Raise cross-entropy from a uniform random start by `steps` signed steps of size `step` times eps."""
    start = uniform_start(points, eps, noise)
    return climb(oracle, points, start, cross_entropy, eps=eps, steps=steps, step=step * eps)


def pgd_passes(*, steps: int, step: float) -> Passes:
    """Return the most passes per image of `climb`, and so of `pgd`."""
    return Passes(forwards=steps + 1, gradients=steps)


def climb(
    oracle: Oracle,
    points: Points,
    x: Any,
    loss: Loss,
    *,
    eps: float,
    steps: int,
    step: float,
    slope: Slope | None = None,
) -> Found:
    """Raise `loss` from x by signed steps; an image leaves as soon as it is broken.

    Costs at most `steps` gradients and one forward per image, and a forward for each iterate that the gradient graph
    misclassifies. Unless `Oracle.hints_hold`, every iterate is judged and costs a forward.
    `slope` replaces the oracle's gradient.
    """
    xp = array_namespace(x)
    found, slope = Found(points, eps), slope or oracle.loss_gradient
    for _ in range(steps):
        z, _, gradient = slope(points, x, loss(points.one_hot))
        standing = found.judge(oracle, points, x, hint=z)
        if not standing.any():
            return found
        points, x, gradient = points.rows(standing), select(x, standing), select(gradient, standing)
        x = project(x + step * xp.sign(gradient), points.x, eps)
    found.judge(oracle, points, x)
    return found


def uniform_start(points: Points, eps: float, noise: Noise) -> Any:
    """Return x + eps u in the ball and in [0, 1], for u uniform in [-1, 1): float32 [B, C, H, W]."""
    xp = array_namespace(points.x)
    u = xp.asarray(noise.uniform(points.index, points.x.shape[1:]), device=device(points.x))
    return project(points.x + eps * u, points.x, eps)
