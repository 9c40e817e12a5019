"""CW-infinity: PGD on the margin loss of Carlini & Wagner 2017, as in Madry et al. 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.attacks.losses import margin
from runtime.attacks.pgd import climb, pgd_passes, uniform_start

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise
    from runtime.attacks.oracle import Found, Oracle, Points


def cw(oracle: Oracle, points: Points, eps: float, noise: Noise, *, steps: int, step: float) -> Found:
    """Raise the margin from a uniform random start by `steps` signed steps of size `step` times eps."""
    start = uniform_start(points, eps, noise)
    return climb(oracle, points, start, margin, eps=eps, steps=steps, step=step * eps)


cw_passes = pgd_passes
"""The most passes per image of `cw`, the same as PGD's."""
