"""CW-L2 (Carlini & Wagner 2017, section VI.A): the nearest wrong point in L2, within the box and no ball.

Roots and tanh are computed in float64 and rounded: in float32 the libraries differ in the last bit.
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
"""The start is drawn to grey by this factor, as its authors do: at black and white tanh has no inverse."""
DECAY, SQUARE_DECAY, FLOOR = 0.9, 0.999, 1e-8
"""Adam's (Kingma & Ba 2015, algorithm 1)."""


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
    """Lower |x' - x|^2 - constant min(margin, confidence) over w, x' = (tanh(w) + 1) / 2, by `steps` steps of Adam.

    One constant, no search over it. It draws no noise and knows no eps: what it finds is the nearest misclassified
    iterate, however far. Images stay until the end, since a broken one still comes nearer. Costs `steps` gradients
    an image, a forward for each iterate that the gradient graph misclassifies until one is proven, and one at the end.
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
    """Return what it costs an image at most."""
    return Passes(forwards=steps + 1, gradients=steps)


@dataclass
class Descent:
    """Where each image is, one row an image.

    Args:
        w: float32 [B, C, H, W], what Adam moves; an array of the session's framework, as the next five.
        x: (tanh(w) + 1) / 2, the iterate.
        slope: dx / dw.
        mean: Adam's running mean of the gradient.
        square: that of its square.
        nearest: the nearest misclassified iterate; the last iterate until there is one.
        distance: float64 [B], squared, of `nearest` from the clean image, infinite until there is one; numpy.

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
        """Keep x where it is misclassified and nearer than before."""
        distance = to_numpy(squared_length(self.x - clean))
        nearer = np.where(wrong, distance < self.distance, np.isinf(self.distance))
        self.nearest = choose(nearer, self.x, self.nearest)
        self.distance = np.where(nearer & wrong, distance, self.distance)

    def move(self, gradient: Any, step: int, lr: float) -> None:
        """Take Adam's step number `step` down a gradient in x."""
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
