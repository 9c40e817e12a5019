"""A gradient held to the artifact itself: three jobs that ask whether the slopes it tells are those of its answers."""

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
"""Steps, in eps, over which a gradient must hold; a surrogate is asked for the larger alone."""
FINEST = 1 / 1020
"""The shortest step, a quarter of a byte's: what changes over less drowns in half precision."""
PIXELS, BLOCKS = 4, 4
"""Directions: random signs of single pixels, and of blocks of an eighth of the side, which a network hears better."""
TURNS, RADIUS = 4, 1 / 4
"""Points around an image, within this part of eps, whose gradients are compared."""
HALVINGS = (9, 16)
"""Of the line between two images: after so many the jump of the margin is looked at."""

STEADY = Passes(forwards=1, gradients=TURNS)
CROSS = Passes(forwards=2 + max(HALVINGS))
"""What `steady` and `cross` cost an image."""


def holding(scales: Sequence[float]) -> Passes:
    """Return what `hold` costs an image over so many scales: at three points, both ends of every direction."""
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
    """Compare what the gradient predicts with what the artifact does, over steps of `scales` x eps.

    At three points of each image: as it is, somewhere in the ball, and its worst point; each brought a step into the
    box, so that both ends of a step are images. Returns by scale, as `apart-0`, the least `concordance` of the three
    over all directions: float64 [B]. Costs `holding(scales)`.
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
    """Ask for z_t - z_y, t the best other class at the logits z: it saturates nowhere and stays one function nearby.

    Returns the loss, and its derivative in the logits: float32 [B, K], numpy.
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
    """Return how the loss of a cotangent changes from x - move to x + move: float64 [B]; curvature cancels."""
    move = target.to_device(move.astype(np.float32))
    up, down = (oracle.logits(points, end).astype(np.float64) for end in (x + move, x - move))
    return (cotangent * (up - down)).sum(axis=1)


def concordance(predicted: Any, actual: Any) -> Any:
    """Return 2 sum(p a) / sum(p^2 + a^2) over the first axis: 1 the same, 0 unrelated or one flat, -1 reversed."""
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
    """Bisect the line from each image to one of another label; return how the margin jumps where the class changes.

    Of a continuous artifact the margin passes through zero. Returns `jump-0` and `jump-1`, its rise over the last
    interval after HALVINGS, as a part of the mean |margin| of the ends: float64 [B], NaN where both ends have the
    image's label. Costs CROSS.
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
    """Return the index in the set of an image of another label for each image, where there is one: int64 [B].

    The first from a random index on, so that it depends on the image alone.
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
