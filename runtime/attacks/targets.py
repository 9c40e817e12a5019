"""The classes that a targeted attack tries, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from runtime.attacks.losses import one_hot
from runtime.attacks.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.attacks.oracle import Found, Oracle, Points

RANKING = Passes(forwards=1)
"""The passes per image that it takes to find the likeliest wrong classes."""


def targets_in_turn(oracle: Oracle, found: Found, points: Points, count: int) -> Iterator[tuple[int, Points, Any]]:
    """Yield (turn, the points that still survive, their one-hot target [B, K]), from the likeliest wrong class down.

    Costs RANKING per image.
    """
    xp = array_namespace(points.one_hot)
    ranked = wrong_classes(oracle.logits(points, points.x), points.label)
    for turn in range(count):
        standing = ~found.broken
        if not standing.any():
            return
        target = xp.asarray(ranked[standing, turn], device=device(points.one_hot))
        yield turn, points.rows(standing), one_hot(target, points.one_hot.shape[1])


def wrong_classes(z: Any, label: Any) -> Any:
    """Return the wrong classes by falling logit, ties by class: [B, K] to [B, K - 1], numpy."""
    first = z.copy()
    first[np.arange(len(label)), label] = np.inf
    return np.argsort(-first, axis=1, kind="stable")[:, 1:]
