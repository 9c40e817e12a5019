"""The fast adaptive boundary attack (Croce & Hein 2020b), targeted, L-infinity: seeks the nearest adversarial point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from runtime.attacks.geometry import TOLERANCE, inner, longest, move_to_hyperplane, project
from runtime.attacks.losses import linear
from runtime.attacks.oracle import Found, Oracle, Points, choose, column, keep, predictions, select, to_numpy
from runtime.attacks.passes import Passes
from runtime.attacks.targets import RANKING, targets_in_turn

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise

SHORTEST = 1e-8
"""The least length that a move counts for where lengths are compared."""


def fab_t(
    oracle: Oracle,
    points: Points,
    eps: float,
    noise: Noise,
    *,
    targets: int,
    steps: int,
    bias: float,
    overshoot: float,
    backward: float,
) -> Found:
    """Seek the boundary to each of the `targets` likeliest wrong classes, from the clean image and without noise."""
    found = Found(points, eps)
    for _, standing, target in targets_in_turn(oracle, found, points, targets):
        seek(oracle, found, standing, target, steps, bias=bias, overshoot=overshoot, backward=backward)
    return found


def fab_t_passes(*, targets: int, steps: int, bias: float, overshoot: float, backward: float) -> Passes:
    """Return the most passes per image."""
    return RANKING + Passes(forwards=steps + 1, gradients=steps) * targets + Passes(forwards=1)


def seek(
    oracle: Oracle,
    found: Found,
    points: Points,
    target: Any,
    steps: int,
    *,
    bias: float,
    overshoot: float,
    backward: float,
) -> None:
    """Step repeatedly to the linearised boundary z_t = z_y. An image leaves when it is broken within eps.

    At the end, each remaining image is judged at its nearest misclassified iterate, projected into the ball.
    Costs at most `steps` gradients and steps + 1 forwards per image, and one more forward if it is broken.
    """
    search = Search.begin(points, target)
    for _ in range(steps):
        loss = linear(points.one_hot, search.toward)
        _, gap, gradient = oracle.loss_gradient(points, search.x, loss)
        search.x = step_to_boundary(search.x, points.x, gap, gradient, bias, overshoot)
        wrong = predictions(oracle.logits(points, search.x)) != points.label
        within = wrong & (search.record(points, wrong) <= found.eps + TOLERANCE)
        standing = np.ones(len(points), bool)
        inside = keep(points, within)
        standing[within] = found.judge(oracle, inside, project(select(search.x, within), inside.x, found.eps))
        search.x = choose(wrong, points.x + backward * (search.x - points.x), search.x)
        points, search = keep(points, standing), keep(search, standing)
        if not len(points):
            return
    found.judge(oracle, points, project(search.nearest, points.x, found.eps))


@dataclass
class Search:
    """The state of the search, one row per image.

    Args:
        x: [B, C, H, W], the iterate; an array of the session's framework, as the next two.
        nearest: the nearest misclassified iterate; the last iterate until there is one.
        toward: [B, K], the one-hot target minus the one-hot label, so that `<toward, z>` is z_t - z_y.
        distance: float32 [B], numpy, the L-infinity distance of `nearest`; infinite until an iterate is misclassified.

    """

    x: Any
    nearest: Any
    toward: Any
    distance: Any

    @classmethod
    def begin(cls, points: Points, target: Any) -> Search:
        """Return the search at the clean images."""
        return cls(points.x, points.x, target - points.one_hot, np.full(len(points), np.inf, np.float32))

    def record(self, points: Points, wrong: Any) -> Any:
        """Keep x where it is misclassified and the nearest so far; return its distance from the clean image [B]."""
        distance = to_numpy(longest(self.x - points.x))
        nearer = np.where(wrong, distance < self.distance, np.isinf(self.distance))
        self.nearest = choose(nearer, self.x, self.nearest)
        self.distance = np.where(nearer & wrong, distance, self.distance)
        return distance


def step_to_boundary(x: Any, clean: Any, gap: Any, gradient: Any, bias: float, overshoot: float) -> Any:
    """Return (1 - a) (x + eta m1) + a (x0 + eta m0) in [0, 1]: equations 8 and 9, where eta is `overshoot`.

    m1 and m0 lead from x and from the clean x0 to the hyperplane on which `gap` (z_t - z_y), linearised at x, is
    zero. a = min(|m1| / (|m1| + |m0|), bias) draws a distant x back to x0.
    """
    xp = array_namespace(x)
    here = move_to_hyperplane(x, gradient, -gap)
    there = move_to_hyperplane(clean, gradient, inner(gradient, x - clean) - xp.astype(gap, xp.float64))
    lengths = [xp.clip(longest(move), SHORTEST, 1.0) for move in (here, there)]
    a = column(xp.clip(lengths[0] / (lengths[0] + lengths[1]), 0.0, bias), x)
    return xp.clip((1 - a) * (x + overshoot * here) + a * (clean + overshoot * there), 0.0, 1.0)
