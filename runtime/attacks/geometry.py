"""The L-infinity ball, the box [0, 1], and hyperplanes."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

TOLERANCE = 1e-6
"""The most by which a point may exceed eps, measured in float64. Float32 rounds x +- eps by up to 6e-8."""


def project(x: Any, centre: Any, eps: float) -> Any:
    """Return the point nearest to x that is within eps of `centre` and in [0, 1]: [B, C, H, W]."""
    xp = array_namespace(x, centre)
    return xp.clip(x, xp.clip(centre - eps, 0.0, 1.0), xp.clip(centre + eps, 0.0, 1.0))


def linf(x: Any, centre: Any) -> Any:
    """Return each image's L-infinity distance from `centre`, in float64: [B, C, H, W] to [B]."""
    difference = np.abs(np.asarray(x, np.float64) - np.asarray(centre, np.float64))
    return difference.reshape(len(difference), -1).max(axis=1)


def longest(move: Any) -> Any:
    """Return the L-infinity norm of each image's move: [B, C, H, W] to [B]."""
    xp = array_namespace(move)
    return xp.max(xp.abs(_flat(move)), axis=1)


def squared_length(move: Any) -> Any:
    """Return the squared L2 norm of each image's move, in float64: [B, C, H, W] to [B]."""
    return inner(move, move)


def inner(a: Any, b: Any) -> Any:
    """Return each image's inner product, in float64 and summed in order so that every library agrees: [B]."""
    return _running_sum(double(_flat(a)) * double(_flat(b)))[:, -1]


def move_to_hyperplane(x: Any, normal: Any, change: Any) -> Any:
    """Return the move shortest in L-infinity that changes <normal, x> by `change` [B] and keeps x in [0, 1].

    Each pixel i moves by l in the direction of its normal w_i, or by its room r_i up to the end of [0, 1], so that
    sum_i |w_i| min(l, r_i) = |change|. If that cannot be reached, each pixel moves by its room. Returns float32
    [B, C, H, W]; sums are in float64. Croce & Hein 2020b, equation 5, without their sort.
    """
    xp = array_namespace(x)
    pixels, weight = _flat(x), _flat(normal)
    way = xp.sign(weight) * xp.astype(xp.sign(change), xp.float32)[:, None]
    room = xp.where(way > 0, 1 - pixels, pixels)
    length = _water_level(double(room), double(xp.abs(weight)), xp.abs(double(change))[:, None])
    return xp.reshape(way * xp.minimum(xp.astype(length, xp.float32), room), x.shape)


def _water_level(rooms: Any, pull: Any, wanted: Any) -> Any:
    """Return l [B, 1] with sum_i pull_i min(l, rooms_i) = wanted [B, 1]; 1 if no l is enough. rooms, pull: [B, D].

    It uses Newton's method from 0. The left side is concave in l and linear between two values of rooms. So l rises to
    the solution without passing it, and is exact when no further pixel runs out of room. Rows are independent.
    """
    xp = array_namespace(rooms)
    reach, one = pull * rooms, xp.ones_like(wanted)
    level = xp.zeros_like(wanted)
    free = rooms > level
    while True:
        slope = _running_sum(xp.where(free, pull, xp.zeros_like(pull)))[:, -1:]
        spent = _running_sum(xp.where(free, xp.zeros_like(reach), reach))[:, -1:]
        rise = xp.where(slope > 0, (wanted - spent) / xp.where(slope > 0, slope, one), one)
        level = xp.minimum(xp.maximum(rise, level), one)
        before, free = free, rooms > level
        if bool(xp.all(free == before)):
            return level


def _flat(x: Any) -> Any:
    return array_namespace(x).reshape(x, (x.shape[0], -1))


def double(x: Any) -> Any:
    """Return x in float64."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float64)


def single(x: Any) -> Any:
    """Return x in float32."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float32)


def _running_sum(x: Any) -> Any:
    return array_namespace(x).cumulative_sum(x, axis=1)
