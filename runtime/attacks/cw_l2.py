"""CW-L2 (Carlini & Wagner 2017, section VI.A): seeks the nearest misclassified point in L2, in [0, 1] but in no ball.

Square roots and tanh are computed in float64 and rounded, because in float32 the libraries differ in the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from runtime.attacks.geometry import double, single, squared_length
from runtime.attacks.losses import margin
from runtime.attacks.oracle import Found, Oracle, Points, choose, predictions, select, to_numpy
from runtime.attacks.passes import Passes

if TYPE_CHECKING:
    from runtime.attacks.noise import Noise

INSIDE = 0.999999
"""The start is scaled towards grey by this factor, as the authors do: at black and white, tanh has no inverse."""
DECAY, SQUARE_DECAY, FLOOR = 0.9, 0.999, 1e-8
"""Adam's constants (Kingma & Ba 2015, algorithm 1)."""


def cw_l2(
    oracle: Oracle,
    points: Points,
    eps: float,
    noise: Noise,
    *,
    constant: float,
    confidence: float,
    lr: float,
    steps: int,
) -> Found:
    """Minimise |x' - x|^2 - constant min(margin, confidence) over w, x' = (tanh(w) + 1) / 2, by `steps` steps of Adam.

    There is no search over `constant`. The attack uses no noise and no eps: it returns the nearest misclassified
    iterate, however far that is. A broken image stays, because it still comes nearer. Costs per image: `steps`
    gradients, a forward for each iterate that the gradient graph misclassifies until one is proven, and one at the end.
    """
    found, descent = Found(points, math.inf), Descent.begin(points.x)
    for step in range(1, steps + 1):
        z, value, gradient = oracle.loss_gradient(points, descent.x, margin(points.one_hot))
        wrong = predictions(z) != points.label
        unproven = wrong & ~found.broken[points.row]
        found.judge(oracle, points.rows(unproven), select(descent.x, unproven))
        descent.record(points.x, wrong)
        wanted = choose(to_numpy(value) < confidence, -constant * gradient, 0 * gradient)
        descent.move(2 * (descent.x - points.x) + wanted, step, lr)
    found.judge(oracle, points, descent.nearest)
    return found


def cw_l2_passes(*, constant: float, confidence: float, lr: float, steps: int) -> Passes:
    """Return the most passes per image."""
    return Passes(forwards=steps + 1, gradients=steps)


@dataclass
class Descent:
    """The state of the descent, one row per image.

    Args:
        w: float32 [B, C, H, W], the variable that Adam updates; an array of the session's framework, as the next five.
        x: (tanh(w) + 1) / 2, the iterate.
        slope: dx / dw.
        mean: Adam's running mean of the gradient.
        square: Adam's running mean of the squared gradient.
        nearest: the nearest misclassified iterate; the last iterate until there is one.
        distance: float64 [B], numpy, the squared L2 distance of `nearest`; infinite until an iterate is misclassified.

    """

    w: Any
    x: Any
    slope: Any
    mean: Any
    square: Any
    nearest: Any
    distance: Any

    @classmethod
    def begin(cls, clean: Any) -> Descent:
        """Return the descent at the clean images."""
        xp = array_namespace(clean)
        w = single(xp.atanh(INSIDE * (2 * double(clean) - 1)))
        x, slope = image(w)
        return cls(w, x, slope, xp.zeros_like(w), xp.zeros_like(w), x, np.full(clean.shape[0], np.inf))

    def record(self, clean: Any, wrong: Any) -> None:
        """Keep x where it is misclassified and nearer than the nearest so far."""
        distance = to_numpy(squared_length(self.x - clean))
        nearer = np.where(wrong, distance < self.distance, np.isinf(self.distance))
        self.nearest = choose(nearer, self.x, self.nearest)
        self.distance = np.where(nearer & wrong, distance, self.distance)

    def move(self, gradient: Any, step: int, lr: float) -> None:
        """Take Adam's step number `step`, against a gradient with respect to x."""
        xp = array_namespace(self.w)
        gradient = gradient * self.slope
        self.mean = DECAY * self.mean + (1 - DECAY) * gradient
        self.square = SQUARE_DECAY * self.square + (1 - SQUARE_DECAY) * gradient * gradient
        root = single(xp.sqrt(double(self.square / (1 - SQUARE_DECAY**step)))) + FLOOR
        self.w = self.w - lr / (1 - DECAY**step) * self.mean / root
        self.x, self.slope = image(self.w)


def image(w: Any) -> tuple[Any, Any]:
    """Return x = (tanh(w) + 1) / 2 and dx / dw."""
    t = array_namespace(w).tanh(double(w))
    return single((t + 1) / 2), single((1 - t * t) / 2)
