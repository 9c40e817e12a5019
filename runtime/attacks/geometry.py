"""The L-infinity ball and the box [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

TOLERANCE = 1e-6
"""How far beyond eps a reported point may lie, in float64: float32 rounds x +- eps by up to 6e-8."""


def project(x: Any, centre: Any, eps: float) -> Any:
    """Return the nearest point to x that is within eps of `centre` and in [0, 1]: [B, C, H, W]."""
    xp = array_namespace(x, centre)
    return xp.clip(x, xp.clip(centre - eps, 0.0, 1.0), xp.clip(centre + eps, 0.0, 1.0))


def linf(x: Any, centre: Any) -> Any:
    """Return the largest absolute difference an image, computed in float64: [B]."""
    difference = np.abs(np.asarray(x, np.float64) - np.asarray(centre, np.float64))
    return difference.reshape(len(difference), -1).max(axis=1)
