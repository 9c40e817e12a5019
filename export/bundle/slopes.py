"""Whether a gradient graph gives the slopes of its graph, tested with both as they will run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.attacks.noise import shuffled
from runtime.checks.gradient import untrue
from runtime.suite.run import hold_gradient
from runtime.suite.scrutiny import most_tolerated
from runtime.suite.units import Target

if TYPE_CHECKING:
    from runtime.images.image_set import ImageSet
    from runtime.session import Session

IMAGES = 64
"""The number of random images on which the gradient is compared with the artifact."""
BATCH = 64


def untrue_slopes(session: Session, images: ImageSet, classes: int, eps: float) -> tuple[str, ...]:
    """Return in words that the gradient does not hold over eps/8, or nothing.

    Over eps/2, an honest network that is not robust may curve, and no attack has shown yet which images survive.
    """
    sample = np.sort(shuffled(0, len(images))[:IMAGES])
    test = hold_gradient(Target(session, images, classes, BATCH), sample, eps=eps)
    if test is None or not (test.surrogate or (test.apart_near or 0) > most_tolerated(test.n)):
        return ()
    return tuple(filter(None, [untrue(test)]))
