"""Whether a gradient graph tells the slopes of the graph that it was made of: asked of both as they will run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.checks.gradient import untrue
from runtime.suite.campaign import hold_gradient
from runtime.suite.units import Target

if TYPE_CHECKING:
    from runtime.images.image_set import ImageSet
    from runtime.session import Session

IMAGES = 64
"""The gradient is held to the artifact on the first so many."""
BATCH = 64


def untrue_slopes(session: Session, images: ImageSet, classes: int, eps: float) -> tuple[str, ...]:
    """Return in words that the gradient does not hold, where the check of that name would block; else nothing."""
    sample = np.arange(min(IMAGES, len(images)))
    test = hold_gradient(Target(session, images, classes, BATCH), sample, eps=eps)
    found = untrue(test) if test else None
    return () if found is None or test is None or test.surrogate else (found,)
