"""The fast gradient sign method (Goodfellow et al. 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.attacks.losses import cross_entropy
from runtime.attacks.pgd import climb, pgd_passes

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise
    from runtime.attacks.oracle import Found, Oracle, Points
    from runtime.attacks.passes import Passes


def fgsm(oracle: Oracle, points: Points, eps: float, noise: Noise) -> Found:
    """Take one signed step of size eps from the clean image, without noise."""
    return climb(oracle, points, points.x, cross_entropy, eps=eps, steps=1, step=eps)


def fgsm_passes() -> Passes:
    """Return the most passes per image."""
    return pgd_passes(steps=1, step=1.0)
