"""Tests whether an engine computes the right gradients: one that gives correct logits may still differentiate wrongly.

A gradient graph has operations that few networks have. An engine that miscompiles one of them still gives the right
logits, but misleads attacks, and then a surviving image proves nothing. So, before any attack, its gradients on images
of noise are compared with those of ONNX Runtime on the CPU for the same graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks.losses import cross_entropy, dlr, linear, margin, one_hot, targeted_dlr
from runtime.errors import BadModel, EdgeproofError, MissingEnvironment
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.session import LossSpec, Session

SIZES = (1, 2, 16)
"""Batch sizes to test, because engines choose kernels by them."""
FARTHEST, FARTHEST_OF_STEPS = 0.1, 0.5
"""The largest relative distance from the reference, without and with staircases; rounding may cross a step."""
LEAST = 0.9
"""The share of images on which a gradient must be that near, for each loss and batch size; some lie at a kink."""


def wrong_gradient(ours: Session, reference: Session, shape: tuple[int, int, int], *, stepped: bool) -> str | None:
    """Return in words how an engine's gradients differ from the reference's for the same graphs; None if they agree.

    Args:
        ours: the session under test.
        reference: the session with correct gradients.
        shape: of one image, [C, H, W].
        stepped: whether the graph has staircases, so that rounding alone may change a gradient.

    """
    x, farthest = noise(max(SIZES), shape), FARTHEST_OF_STEPS if stepped else FARTHEST
    for name, loss in _losses(len(x), reference.logits(x[:1]).shape[1]).items():
        _, *expected = reference.loss_gradient(x, loss)
        for size in SIZES:
            parts = [slice(at, at + size) for at in range(0, min(max(SIZES), 8 * size), size)]
            try:
                _, *found = zip(*(ours.loss_gradient(x[part], loss.rows(part)) for part in parts), strict=True)
            except EdgeproofError as error:
                return f"the gradient graph fails: {error.message}"
            for what, mine, its in zip(("value", "gradient"), map(np.concatenate, found), expected, strict=True):
                near = _near(mine, its[: len(mine)], farthest)
                if near.mean() < LEAST:
                    differ = f"{int((~near).sum())} of {len(near)}"
                    return f"its {what} of {name} differs from ort:cpu's on {differ} images of noise"
    return None


def with_true_gradient(
    opening: Callable[[bytes | None], Session],
    gradient: bytes | None,
    reference: Callable[[], Session],
    shape: tuple[int, int, int],
) -> Session:
    """Return a session with the gradient graph if the engine computes it correctly, and else without it.

    Args:
        opening: opens the artifact with a gradient graph, or without one for None.
        gradient: the gradient graph; None if none is wanted.
        reference: opens the same graphs on an engine whose gradients are known to be correct.
        shape: of one image, [C, H, W].

    """
    if gradient is None:
        return opening(None)
    try:
        session = opening(gradient)
    except (BadModel, MissingEnvironment) as error:
        reason = error.message
    else:
        if not session.card().differentiable:
            return session
        with reference() as known:
            wrong = wrong_gradient(session, known, shape, stepped=session.card().facts.stepped)
        if wrong is None:
            return session
        session.close()
        reason = wrong
    session = opening(None)  # raises if the artifact's own graph was at fault
    card = session.card()
    log.warning(f"{card.backend}:{card.provider} judges, but its gradient is not used: {reason}")
    return session


def _losses(n: int, classes: int) -> dict[str, LossSpec]:
    """Return losses that together use all parts of a gradient graph."""
    label = one_hot(np.arange(n) % classes, classes).astype(np.float32)
    other = np.roll(label, 1, axis=1)
    found = {"cross-entropy": cross_entropy(label), "margin": margin(label), "a logit": linear(label, other - label)}
    if classes >= 3:
        found["DLR"] = dlr(label)
    if classes >= 4:
        found["targeted DLR"] = targeted_dlr(label, other)
    return found


def noise(n: int, shape: tuple[int, int, int]) -> Any:
    """Return n fixed images of coarse and fine noise: float32 [n, C, H, W] in [0, 1]."""
    rng, (channels, height, width) = np.random.default_rng(0), shape
    coarse = rng.random((n, channels, -(-height // 4), -(-width // 4))).repeat(4, 2).repeat(4, 3)
    fine = rng.random((n, *shape))
    return (0.7 * coarse[:, :, :height, :width] + 0.3 * fine).astype(np.float32)


def _near(gradient: Any, expected: Any, farthest: float) -> Any:
    """Return for which images two answers agree: bool [B]. NaN agrees with nothing."""
    ours, theirs = (each.reshape(len(each), -1).astype(np.float64) for each in (gradient, expected))
    return np.linalg.norm(ours - theirs, axis=1) <= farthest * np.linalg.norm(theirs, axis=1)
