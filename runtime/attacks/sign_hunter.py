"""SignHunter (Al-Dujaili & O'Reilly 2020): a score-based search that flips ever smaller pieces of the image."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks.geometry import project
from runtime.attacks.oracle import Found, Oracle, Points, choose, select
from runtime.attacks.passes import Passes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.attacks.noise import Noise


def sign_hunter(oracle: Oracle, points: Points, eps: float, noise: Noise, *, queries: int) -> Found:
    """Flip the signs of x +- eps piece by piece if that raises the margin; an image leaves as soon as it is broken.

    Uses no noise. Costs at most `queries` forwards per image.
    """
    found = Found(points, eps)
    low, high = project(points.x - eps, points.x, eps), project(points.x + eps, points.x, eps)
    up = np.ones(points.x.shape, bool)
    standing = found.judge(oracle, points, choose(up, high, low))
    for _, piece in zip(range(queries - 1), pieces(*points.x.shape[2:]), strict=False):
        points, low, high, up = points.rows(standing), select(low, standing), select(high, standing), up[standing]
        if not len(points):
            break
        tried, before = up ^ piece, found.margin[points.row]
        standing = found.judge(oracle, points, choose(tried, high, low))
        up = np.where((found.margin[points.row] > before)[:, None, None, None], tried, up)
    return found


def sign_hunter_passes(*, queries: int) -> Passes:
    """Return the most passes per image."""
    return Passes(forwards=queries)


def pieces(height: int, width: int) -> Iterator[Any]:
    """Yield the whole image, its halves by rows, its quarters, and so on down to pixels: bool [1, 1, H, W]."""
    rows = columns = 1
    while True:
        for top, bottom in _parts(height, rows):
            for left, right in _parts(width, columns):
                piece = np.zeros((1, 1, height, width), bool)
                piece[..., top:bottom, left:right] = True
                yield piece
        if rows == height and columns == width:
            return
        if (rows <= columns and rows < height) or columns == width:
            rows = min(2 * rows, height)
        else:
            columns = min(2 * columns, width)


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    ends = [length * part // count for part in range(count + 1)]
    return list(pairwise(ends))
