"""The Square attack (Andriushchenko et al. 2020), L-infinity: a random search with squares, without gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks.geometry import project
from runtime.attacks.oracle import Found, Oracle, Points, choose, select
from runtime.attacks.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.attacks.noise import Noise

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000)
"""Numbers of squares after each of which a square covers half as much of the image."""
BLOCK = 64
"""Squares drawn at once per image. A square's random numbers depend on its block, so BLOCK is part of the noise."""


def square(oracle: Oracle, points: Points, eps: float, noise: Noise, *, queries: int, p: float) -> Found:
    """Set squares to x +- eps and keep those that raise the margin; an image leaves as soon as it is broken.

    The first squares cover a share `p` of the image. Costs at most `queries` forwards per image.
    """
    found = Found(points, eps)
    channels, height, width = points.x.shape[1:]
    low, high = project(points.x - eps, points.x, eps), project(points.x + eps, points.x, eps)
    best = choose(stripes(points, noise), high, low)
    standing = found.judge(oracle, points, best)
    draws = np.empty((len(points), BLOCK, 2 + channels), np.uint64)
    for number in range(queries - 1):
        points, best, low, high = points.rows(standing), *(select(array, standing) for array in (best, low, high))
        if not len(points):
            break
        if number % BLOCK == 0:
            bits = noise.bits(points.index, draws[0].size, restart=1 + number // BLOCK)
            draws[points.row] = bits.reshape(-1, *draws.shape[1:])
        draw = draws[points.row, number % BLOCK]
        inside = window(draw[:, :2], side(number, p, height, width), (height, width))
        up = _sign(draw[:, 2:])[:, :, None, None]
        tried = choose(inside, choose(up, high, low), best)
        before = found.margin[points.row]
        standing = found.judge(oracle, points, tried)
        best = choose(found.margin[points.row] > before, tried, best)
    return found


def square_passes(*, queries: int, p: float) -> Passes:
    """Return the most passes per image."""
    return Passes(forwards=queries)


def stripes(points: Points, noise: Noise) -> Any:
    """Return where the start is x + eps and not x - eps, one sign per column and channel: bool [B, C, 1, W]."""
    channels, _, width = points.x.shape[1:]
    return _sign(noise.bits(points.index, channels * width)).reshape(-1, channels, 1, width)


def side(number: int, p: float, height: int, width: int) -> int:
    """Return the side in pixels of square `number`, which covers the share p of the image, halved by HALVINGS."""
    share = p / 2 ** sum(number > halving for halving in HALVINGS)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def window(draw: Any, length: int, image: Sequence[int]) -> Any:
    """Return a square at a uniformly random place, for each row of `draw` (uint64 [B, 2]): bool [B, 1, H, W], numpy."""
    rows, columns = (_span(draw[:, axis], length, size) for axis, size in enumerate(image))
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _span(draw: Any, length: int, size: int) -> Any:
    """Return `length` neighbours among `size`, at one of size - length + 1 places: bool [B, size].

    The place is the high half of the draw's upper 32 bits times the places: uniform up to an error of places / 2^32.
    """
    first = ((draw >> np.uint64(32)) * np.uint64(size - length + 1) >> np.uint64(32)).astype(np.int64)[:, None]
    pixel = np.arange(size)
    return (first <= pixel) & (pixel < first + length)


def _sign(draw: Any) -> Any:
    return draw >> np.uint64(63) > 0
