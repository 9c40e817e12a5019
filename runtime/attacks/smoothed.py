"""PGD on the margin with gradients averaged around each iterate, which smooths a gradient that varies fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace, device

from runtime.attacks.losses import margin
from runtime.attacks.passes import Passes
from runtime.attacks.pgd import climb, uniform_start

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise
    from runtime.attacks.oracle import Found, Oracle, Points
    from runtime.session import LossSpec


def smoothed(
    oracle: Oracle, points: Points, eps: float, noise: Noise, *, steps: int, step: float, radius: float, draws: int
) -> Found:
    """Raise the margin from a uniform random start by `steps` signed steps of size `step` times eps.

    Each step follows the mean of the gradients at `draws` random points within `radius` times eps of the iterate.
    """
    taken = 0

    def slope(points: Points, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        nonlocal taken
        xp, total = array_namespace(x), 0.0
        for _ in range(draws):
            taken += 1
            u = xp.asarray(noise.uniform(points.index, x.shape[1:], restart=taken), device=device(x))
            _, _, gradient = oracle.loss_gradient(points, xp.clip(x + radius * eps * u, 0.0, 1.0), loss)
            total = total + gradient
        return None, None, total

    start = uniform_start(points, eps, noise)
    return climb(oracle, points, start, margin, eps=eps, steps=steps, step=step * eps, slope=slope)


def smoothed_passes(*, steps: int, step: float, radius: float, draws: int) -> Passes:
    """Return the most passes per image."""
    return Passes(forwards=steps + 1, gradients=steps * draws)
