"""The learning rate at every point of a run: it rises in the warm-up, then falls according to the schedule."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

from pipeline.recipe.tables import RateSchedule, TrainTable


def learning_rate(train: TrainTable, epoch: float) -> float:
    """Return the learning rate at a point in time, in epochs from 0. A step uses the rate at its beginning.

    In the warm-up, it rises linearly from 0 to `train.lr`.
    """
    if epoch < train.warmup:
        return train.lr * epoch / train.warmup
    return train.lr * FALLS[train.schedule](train, epoch)


def _steps(train: TrainTable, epoch: float) -> float:
    """Divide by ten at each milestone passed."""
    return float(0.1 ** bisect.bisect_right(sorted(train.milestones), epoch))


def _line(train: TrainTable, epoch: float) -> float:
    """Fall in a straight line to 0 at the end (the second half of Smith and Topin 2017, arXiv 1708.07120)."""
    return 1 - _behind(train, epoch)


def _cosine(train: TrainTable, epoch: float) -> float:
    """Fall along half a cosine to 0 at the end (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts)."""
    return (1 + math.cos(math.pi * _behind(train, epoch))) / 2


def _behind(train: TrainTable, epoch: float) -> float:
    """Return the fraction of the epochs after the warm-up that is done."""
    return (epoch - train.warmup) / (train.epochs - train.warmup)


FALLS: dict[RateSchedule, Callable[[TrainTable, float], float]] = {
    "steps": _steps,
    "one-cycle": _line,
    "cosine": _cosine,
}
"""By schedule: the learning rate after the warm-up, as a fraction of `train.lr`."""
