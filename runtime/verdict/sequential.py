"""Stopping early: a betting confidence sequence, which holds at whatever image one stops.

Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting (J. R. Stat. Soc. B 86): hedged
capital, here with a mixture over a grid of bets (their hgKelly). Someone who bets a part f of their money on every
image that the mean is above m has, after n images, capital prod_i (1 + f (x_i / m - 1)). If the mean is at most m,
that capital reaches 1 / alpha at any time with a probability of at most alpha (Ville). The means that neither a bet
above nor one below has refuted are the interval.

Values are 0, 1/2 or 1: whether an image stood; or how two artifacts differ on it, from [-1, 1] brought to [0, 1]. So
capital depends on three counts alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from runtime.statistics import Interval

ALPHA = 0.05
VALUES = (0.0, 0.5, 1.0)
BETS = 1 / (1 + np.exp(-np.linspace(-6, 6, 33)))
"""Parts of the money that are bet, from 1/400 to 399/400: near the best for means far from m and close to it."""
EDGE = 1e-9
"""The interval is looked for between this and one less this."""
HALVINGS = 40


def running_counts(values: Any) -> Any:
    """Return how many of the first t values were 0, 1/2 and 1: float64 [T] to int64 [T, 3]."""
    return np.stack([np.cumsum(values == value) for value in VALUES], axis=-1)


def log_capital(counts: Any, mean: float) -> Any:
    """Return the log capital of who bet that the true mean is above `mean`: int64 [..., 3] to float64 [...].

    The bettor spreads the money over BETS and leaves it there. Falls as `mean` rises, so that what it refutes is
    an interval.
    """
    growth = np.log1p(np.outer(BETS, np.asarray(VALUES) / mean - 1))
    capital = counts @ growth.T
    top = capital.max(axis=-1, keepdims=True)
    return top[..., 0] + np.log(np.mean(np.exp(capital - top), axis=-1))


def above(counts: Any, mean: float, alpha: float = ALPHA) -> Any:
    """Return where `mean` and all below are refuted, at a level of alpha / 2: bool [...]."""
    if mean <= 0:
        return np.ones(counts.shape[:-1], bool)
    return log_capital(counts, mean) >= np.log(2 / alpha)


def below(counts: Any, mean: float, alpha: float = ALPHA) -> Any:
    """Return where `mean` and all above are refuted, at a level of alpha / 2: bool [...]."""
    return above(counts[..., ::-1], 1 - mean, alpha)


def interval(values: Any, alpha: float = ALPHA) -> Interval:
    """Return the confidence sequence after all values (float64 [T], each of VALUES), its past taken into account."""
    counts = np.unique(running_counts(values), axis=0)
    return _least(counts, alpha), 1 - _least(counts[:, ::-1], alpha)


def _least(counts: Any, alpha: float) -> float:
    """Return the largest mean that some of `counts` refutes with all below it; 0 where none does."""
    low, high = 0.0, 1 - EDGE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if above(counts, middle, alpha).any() else (low, middle)
    return low
