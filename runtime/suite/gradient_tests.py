"""Tests of a gradient against the artifact: three jobs that compare its slopes with how the answers change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from runtime.attacks.losses import linear, one_hot
from runtime.attacks.noise import Noise
from runtime.attacks.oracle import margins, predictions, to_numpy
from runtime.attacks.passes import Passes
from runtime.attacks.pgd import uniform_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.attacks.oracle import Oracle, Points
    from runtime.session import LossSpec
    from runtime.suite.evidence import Evidence
    from runtime.suite.units import Arrays, Target

SCALES = (1 / 8, 1 / 2)
"""The steps, in units of eps, over which a gradient must predict the artifact; a surrogate only over the larger."""
FINEST = 1 / 1020
"""The shortest step, a quarter of a byte's level. Half precision hides changes over less."""
PIXELS, BLOCKS = 4, 4
"""Numbers of directions: random signs per pixel, and per block of an eighth of the side, which change logits more."""
TURNS, RADIUS = 4, 1 / 4
"""The points around an image, within RADIUS times eps, whose gradients are compared."""
HALVINGS = (9, 16)
"""The halvings of the line between two images after which the jump of the margin is measured."""

STEADY = Passes(forwards=1, gradients=TURNS)
CROSS = Passes(forwards=2 + max(HALVINGS))
"""The passes per image of `steady` and `cross`."""


def holding(scales: Sequence[float]) -> Passes:
    """Return the passes per image of `hold`: both ends of every direction at three points, for each scale."""
    return Passes(forwards=3 + 3 * 2 * (PIXELS + BLOCKS) * len(scales), gradients=3)


def hold(
    oracle: Oracle,
    target: Target,
    points: Points,
    *,
    eps: float,
    seed: int,
    evidence: Evidence,
    scales: Sequence[float],
) -> Arrays:
    """Compare what the gradient predicts with how the artifact changes, over steps of `scales` times eps.

    It uses three points of each image: the image, a random point in the ball, and the worst point. Each is moved a step
    into the box, so that both ends of a step are images. Returns for each scale, as `apart-0`, the least `concordance`
    at the three points over all directions: float64 [B]. Costs `holding(scales)`.
    """
    noise = Noise(seed, "gradient-holds")
    steps = [max(scale * eps, FINEST) for scale in scales]
    worst = target.to_device(evidence.adversarial[np.searchsorted(evidence.kept, points.index)])
    least = np.full((len(steps), len(points)), np.inf)
    for x in (points.x, uniform_start(points, eps, noise), worst):
        x = array_namespace(x).clip(x, steps[-1], 1 - steps[-1])
        loss, cotangent = above_label(target, points, oracle.logits(points, x))
        _, _, gradient = oracle.loss_gradient(points, x, loss)
        slope = to_numpy(gradient).astype(np.float64)
        signs = directions(noise, points.index, x.shape[1:])
        for row, step in enumerate(steps):
            predicted = np.stack([2 * step * (slope * sign).sum(axis=(1, 2, 3)) for sign in signs])
            actual = np.stack([change(oracle, target, points, x, step * sign, cotangent) for sign in signs])
            least[row] = np.minimum(least[row], concordance(predicted, actual))
    return {f"apart-{row}": values for row, values in enumerate(least)}


def above_label(target: Target, points: Points, z: Any) -> tuple[LossSpec, Any]:
    """Return the loss z_t - z_y, with t the likeliest wrong class at the logits z, and its derivative in the logits.

    The loss never saturates, and t stays the same nearby. The derivative is float32 [B, K], numpy.
    """
    others = z.copy()
    others[np.arange(len(z)), points.label] = -np.inf
    cotangent = one_hot(target.to_device(others.argmax(axis=1)), target.classes) - points.one_hot
    return linear(points.one_hot, cotangent), to_numpy(cotangent)


def directions(noise: Noise, index: Any, shape: Sequence[int]) -> list[Any]:
    """Return random signs of pixels, then of blocks: PIXELS + BLOCKS arrays, float32 [B, C, H, W]."""
    channels, height, width = shape
    return [
        _signs(noise, index, (channels, height, width), side=1 if number < PIXELS else max(1, height // 8), draw=number)
        for number in range(PIXELS + BLOCKS)
    ]


def _signs(noise: Noise, index: Any, shape: tuple[int, int, int], *, side: int, draw: int) -> Any:
    channels, height, width = shape
    rows, columns = -(-height // side), -(-width // side)
    up = noise.bits(index, channels * rows * columns, restart=1 + draw) >> np.uint64(63) > 0
    signs = np.where(up, np.float32(1), np.float32(-1)).reshape(-1, channels, rows, columns)
    return signs.repeat(side, axis=2).repeat(side, axis=3)[:, :, :height, :width]


def change(oracle: Oracle, target: Target, points: Points, x: Any, move: Any, cotangent: Any) -> Any:
    """Return how <cotangent, logits> changes from x - move to x + move, where curvature cancels: float64 [B]."""
    move = target.to_device(move.astype(np.float32))
    up, down = (oracle.logits(points, end).astype(np.float64) for end in (x + move, x - move))
    return (cotangent * (up - down)).sum(axis=1)


def concordance(predicted: Any, actual: Any) -> Any:
    """Return 2 sum(p a) / sum(p^2 + a^2) over the first axis: 1 if equal, 0 if unrelated or flat, -1 if reversed.

    Both are float64 [M, B], M changes of each image; the result is [B].
    """
    both = (predicted**2 + actual**2).sum(axis=0)
    return np.divide(2 * (predicted * actual).sum(axis=0), both, out=np.zeros_like(both), where=both > 0)


def steady(oracle: Oracle, target: Target, points: Points, *, eps: float, seed: int) -> Arrays:
    """Return `steadiness`, the mean cosine between the gradients at TURNS points around each image: float64 [B].

    Costs STEADY.
    """
    xp, noise = array_namespace(points.x), Noise(seed, "gradient-steady")
    loss, _ = above_label(target, points, oracle.logits(points, points.x))
    total, own = np.zeros(()), np.zeros(())
    for turn in range(TURNS):
        u = target.to_device(noise.uniform(points.index, points.x.shape[1:], restart=turn))
        _, _, gradient = oracle.loss_gradient(points, xp.clip(points.x + RADIUS * eps * u, 0.0, 1.0), loss)
        flat = to_numpy(gradient).astype(np.float64).reshape(len(points), -1)
        length = np.sqrt((flat**2).sum(axis=1, keepdims=True))
        unit = np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)
        total, own = total + unit, own + (unit**2).sum(axis=1)
    return {"steadiness": ((total**2).sum(axis=1) - own) / (TURNS * (TURNS - 1))}


def cross(oracle: Oracle, target: Target, points: Points, *, seed: int) -> Arrays:
    """Bisect the line from each image to one of another label, to measure how the margin jumps where the class changes.

    If the artifact is continuous, the margin passes through zero. Returns `jump-0` and `jump-1`, the margin's rise over
    the last interval after each of HALVINGS, relative to the mean |margin| of the line's ends: float64 [B], NaN unless
    the class changes from the image's label along the line. Costs CROSS.
    """
    end = target.to_device(target.images.as_float(others(target, points, seed)))
    margin = [margins(oracle.logits(points, x), points.label).astype(np.float64) for x in (points.x, end)]
    crosses = (margin[0] < 0) & (margin[1] > 0)
    scale = (np.abs(margin[0]) + np.abs(margin[1])) / 2
    bracket, found = [np.zeros(len(points)), np.ones(len(points))], {}
    for halving in range(1, max(HALVINGS) + 1):
        middle = (bracket[0] + bracket[1]) / 2
        part = target.to_device(middle.astype(np.float32)[:, None, None, None])
        z = oracle.logits(points, points.x + part * (end - points.x))
        wrong, there = predictions(z) != points.label, margins(z, points.label)
        for side, moves in enumerate((~wrong, wrong)):
            bracket[side], margin[side] = np.where(moves, middle, bracket[side]), np.where(moves, there, margin[side])
        if halving in HALVINGS:
            jump = np.full(len(points), np.nan)
            np.divide(margin[1] - margin[0], scale, out=jump, where=crosses)
            found[f"jump-{HALVINGS.index(halving)}"] = jump
    return found


def others(target: Target, points: Points, seed: int) -> Any:
    """Return for each image the index in the set of an image with another label, if there is one: int64 [B].

    It is the first from a random index on, which depends on the image alone.
    """
    labels = target.images.labels
    first = (Noise(seed, "margin-jumps").bits(points.index, 1)[:, 0] % np.uint64(len(labels))).astype(np.int64)
    return np.array(
        [
            (start + np.argmax(np.roll(labels, -start) != label)) % len(labels)
            for start, label in zip(first.tolist(), points.label.tolist(), strict=True)
        ],
        np.int64,
    )
