"""A search along rays by the predicted class alone (after RayS, Chen & Gu 2020), which masked scores cannot mislead."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from runtime.attacks.geometry import project
from runtime.attacks.oracle import Found, Oracle, Points, predictions
from runtime.attacks.passes import Passes
from runtime.attacks.sign_hunter import pieces

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise

SHORTER = 0.99
"""A flip of signs is kept if the class is wrong already at this share of the shortest radius so far."""


def rays(oracle: Oracle, points: Points, eps: float, noise: Noise, *, queries: int, halvings: int) -> Found:
    """Seek the signs s whose ray x + r s leaves the class at the smallest radius r; an image leaves if r is within eps.

    The signs of ever smaller pieces are flipped. If that shortens the radius, it is bisected `halvings` times, down to
    eps. Uses no noise. Costs at most queries + halvings + 1 forwards per image.
    """
    found = Found(points, eps)
    signs = np.ones(points.x.shape, np.float32)
    radius, spent = np.ones(len(points)), np.zeros(len(points), np.int64)
    for piece in chain([np.zeros((), bool)], pieces(*points.x.shape[2:])):
        tried = np.where(piece, -signs, signs)
        shorter = _wrong(oracle, points, tried, np.where(radius < 1, SHORTER * radius, radius))
        spent += 1
        if shorter.any():
            near, ray = points.rows(shorter), tried[shorter]
            found.judge(oracle, near, project(_along(near, ray, np.full(len(near), eps)), near.x, eps))
            radius[shorter] = _shortest(oracle, near, ray, eps, radius[shorter], halvings)
            signs[shorter] = ray
            spent[shorter] += 1 + halvings
        left = ~found.broken[points.row] & (spent < queries)
        points, signs, radius, spent = points.rows(left), signs[left], radius[left], spent[left]
        if not len(points):
            break
    return found


def rays_passes(*, queries: int, halvings: int) -> Passes:
    """Return the most passes per image."""
    return Passes(forwards=queries + halvings + 1)


def _shortest(oracle: Oracle, points: Points, ray: Any, eps: float, high: Any, halvings: int) -> Any:
    """Return the smallest radius above eps that is known to leave the class, by bisection: float64 [B]."""
    low = np.full(len(points), eps)
    for _ in range(halvings):
        middle = (low + high) / 2
        wrong = _wrong(oracle, points, ray, middle)
        low, high = np.where(wrong, low, middle), np.where(wrong, middle, high)
    return high


def _wrong(oracle: Oracle, points: Points, ray: Any, radius: Any) -> Any:
    return predictions(oracle.logits(points, _along(points, ray, radius))) != points.label


def _along(points: Points, ray: Any, radius: Any) -> Any:
    xp = array_namespace(points.x)
    step = xp.asarray((radius[:, None, None, None] * ray).astype(np.float32), device=device(points.x))
    return xp.clip(points.x + step, 0.0, 1.0)
