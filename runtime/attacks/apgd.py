"""Auto-PGD (Croce & Hein 2020, algorithm 1), L-infinity: PGD with momentum that adapts its step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from runtime.attacks.geometry import project
from runtime.attacks.losses import cross_entropy, dlr, targeted_dlr
from runtime.attacks.oracle import Found, Oracle, Points, choose, column, keep, to_numpy
from runtime.attacks.passes import Passes
from runtime.attacks.targets import RANKING, targets_in_turn

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise
    from runtime.session import LossSpec

FIRST_STEP = 2.0
"""The first step size, in units of eps."""
MOMENTUM = 0.75
"""The weight of the new step; the last move has the rest."""
FIRST_PERIOD, SHORTER, SHORTEST = 0.22, 0.03, 0.06
"""Periods between checks, as fractions of all steps: the first, the decrease of each later one, the shortest."""


def apgd_ce(oracle: Oracle, points: Points, eps: float, noise: Noise, *, steps: int, rho: float) -> Found:
    """Raise cross-entropy."""
    found = Found(points, eps)
    ascend(oracle, found, points, cross_entropy(points.one_hot), edge_start(points, eps, noise), steps, rho)
    return found


def apgd_dlr(oracle: Oracle, points: Points, eps: float, noise: Noise, *, steps: int, rho: float) -> Found:
    """Raise the difference-of-logits ratio (DLR), whose gradient does not vanish when the logits are scaled up."""
    found = Found(points, eps)
    ascend(oracle, found, points, dlr(points.one_hot), edge_start(points, eps, noise), steps, rho)
    return found


def apgd_t(oracle: Oracle, points: Points, eps: float, noise: Noise, *, targets: int, steps: int, rho: float) -> Found:
    """Raise targeted DLR for each of the `targets` likeliest wrong classes in turn, each from its own start."""
    found = Found(points, eps)
    for turn, standing, target in targets_in_turn(oracle, found, points, targets):
        loss = targeted_dlr(standing.one_hot, target)
        ascend(oracle, found, standing, loss, edge_start(standing, eps, noise, turn), steps, rho)
    return found


def apgd_ce_passes(*, steps: int, rho: float) -> Passes:
    """Return the most passes per image of `apgd_ce`."""
    return Passes(forwards=steps + 2, gradients=steps + 1)


apgd_dlr_passes = apgd_ce_passes


def apgd_t_passes(*, targets: int, steps: int, rho: float) -> Passes:
    """Return the most passes per image of `apgd_t`."""
    return RANKING + apgd_ce_passes(steps=steps, rho=rho) * targets


def ascend(oracle: Oracle, found: Found, points: Points, loss: LossSpec, start: Any, steps: int, rho: float) -> None:
    """Raise `loss` from `start`. An image leaves when it is broken; the others are judged at their highest loss.

    Costs at most steps + 1 gradients and one forward per image, and a forward for each iterate that the gradient
    graph misclassifies. Unless `Oracle.hints_hold`, every iterate is judged and costs a forward.
    """
    periods = check_periods(steps)
    z, value, gradient = oracle.loss_gradient(points, start, loss)
    climb = Climb.begin(start, to_numpy(value), gradient, FIRST_STEP * found.eps)
    standing = found.judge(oracle, points, start, hint=z)
    for iteration in range(1, steps + 1):
        points, loss, climb = keep(points, standing), keep(loss, standing), keep(climb, standing)
        if not len(points):
            return
        climb.advance(points.x, found.eps, momentum=MOMENTUM if iteration > 1 else 1.0)
        z, value, gradient = oracle.loss_gradient(points, climb.x, loss)
        standing = found.judge(oracle, points, climb.x, hint=z)
        climb.record(to_numpy(value), gradient)
        if iteration in periods:
            climb.check(periods[iteration], rho)
    points, climb = keep(points, standing), keep(climb, standing)
    found.judge(oracle, points, climb.best)


@dataclass
class Climb:
    """The state of the ascent, one row per image.

    Args:
        x: [B, C, H, W], the iterate; an array of the session's framework, as the next four.
        previous: the iterate before x.
        gradient: the loss's gradient at x.
        best: the iterate with the highest loss.
        best_gradient: the loss's gradient at `best`.
        value: float32 [B], the loss at the last iterate; numpy, as the rest.
        best_value: the highest loss.
        checked_value: the highest loss at the last check.
        step: float32 [B], the step size.
        rises: int64 [B], iterates since the last check whose loss was above that of the iterate before.
        halved: bool [B], whether the last check halved the step; True before the first check.

    """

    x: Any
    previous: Any
    gradient: Any
    best: Any
    best_gradient: Any
    value: Any
    best_value: Any
    checked_value: Any
    step: Any
    rises: Any
    halved: Any

    @classmethod
    def begin(cls, x: Any, value: Any, gradient: Any, step: float) -> Climb:
        """Return the state at the start."""
        n = len(value)
        steps, rises, halved = np.full(n, step, np.float32), np.zeros(n, np.int64), np.ones(n, bool)
        return cls(x, x, gradient, x, gradient, value, value, value, steps, rises, halved)

    def advance(self, centre: Any, eps: float, momentum: float) -> None:
        """Take a signed step and mix it with the last move.

        z = P(x_k + step sign g); x_{k+1} = P(x_k + a (z - x_k) + (1 - a) (x_k - x_{k-1})), where a is `momentum`.
        """
        xp = array_namespace(self.x)
        step = project(self.x + column(self.step, self.x) * xp.sign(self.gradient), centre, eps) - self.x
        moved = self.x + momentum * step + (1 - momentum) * (self.x - self.previous)
        self.previous, self.x = self.x, project(moved, centre, eps)

    def record(self, value: Any, gradient: Any) -> None:
        """Store the loss and gradient at x, and x itself if its loss is the highest."""
        self.gradient = gradient
        self.rises = self.rises + (value > self.value)
        self.value = value
        higher = value > self.best_value
        self.best_value = np.where(higher, value, self.best_value)
        self.best = choose(higher, self.x, self.best)
        self.best_gradient = choose(higher, gradient, self.best_gradient)

    def check(self, period: int, rho: float) -> None:
        """Halve the step and return to the best iterate, for images whose last `period` steps made no progress.

        That is so if the loss rose in at most a share rho of them, or if the last check did not halve the step and
        the highest loss has not changed since.
        """
        idle = ~self.halved & (self.best_value <= self.checked_value)
        halve = (self.rises <= rho * period) | idle
        self.step = np.where(halve, self.step / 2, self.step)
        self.x = choose(halve, self.best, self.x)
        self.gradient = choose(halve, self.best_gradient, self.gradient)
        self.rises, self.halved, self.checked_value = np.zeros_like(self.rises), halve, self.best_value


def check_periods(steps: int) -> dict[int, int]:
    """Return the iterations after which step sizes are checked, each with the number of steps since the last check.

    For 100 steps: 22, 41, 57, 70, 80, 87, 93, 99.
    """
    period, shorter, shortest = (max(int(part * steps), 1) for part in (FIRST_PERIOD, SHORTER, SHORTEST))
    periods, iteration = {}, period
    while iteration <= steps:
        periods[iteration] = period
        period = max(period - shorter, shortest)
        iteration += period
    return periods


def edge_start(points: Points, eps: float, noise: Noise, restart: int = 0) -> Any:
    """Return x + eps u / max|u| in the ball and in [0, 1], for u uniform in [-1, 1): float32 [B, C, H, W]."""
    xp = array_namespace(points.x)
    u = noise.uniform(points.index, points.x.shape[1:], restart)
    u = u / np.maximum(np.abs(u).max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
    return project(points.x + eps * xp.asarray(u, device=device(points.x)), points.x, eps)
