"""Early stopping: a betting confidence sequence, whose interval is valid at whatever image a run stops.

Source: Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting (J. R. Stat. Soc. B 86),
hedged capital with a mixture over a grid of bets (hgKelly). A bettor who stakes a fraction f of the capital on each
image, on a mean above m, has a capital of prod_i (1 + f (x_i / m - 1)) after n images. If the mean is at most m, the
probability that this capital ever reaches 1 / alpha is at most alpha (Ville). The interval has the means that neither a
bet above nor a bet below has refuted.

Values are 0, 1/2 or 1: whether an image survives, or how two artifacts differ on it, mapped from [-1, 1] to [0, 1]. So
the capital depends only on three counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from runtime.statistics import Interval

ALPHA = 0.05
VALUES = (0.0, 0.5, 1.0)
BETS = 1 / (1 + np.exp(-np.linspace(-6, 6, 33)))
"""The fractions of the capital that are bet, from 1/400 to 399/400: nearly optimal for means near m and far from it."""
EDGE = 1e-9
"""The interval is sought between EDGE and 1 - EDGE."""
HALVINGS = 40


def running_counts(values: Any) -> Any:
    """Return how many of the first t values are 0, 1/2 and 1, for each t: float64 [T] to int64 [T, 3]."""
    return np.stack([np.cumsum(values == value) for value in VALUES], axis=-1)


def log_capital(counts: Any, mean: float) -> Any:
    """Return the log capital of a bettor on a true mean above `mean`: int64 [..., 3] to float64 [...].

    The bettor divides the initial capital equally over BETS. The log capital falls as `mean` rises, so that the refuted
    means are an interval.
    """
    growth = np.log1p(np.outer(BETS, np.asarray(VALUES) / mean - 1))
    capital = counts @ growth.T
    top = capital.max(axis=-1, keepdims=True)
    return top[..., 0] + np.log(np.mean(np.exp(capital - top), axis=-1))


def above(counts: Any, mean: float, alpha: float = ALPHA) -> Any:
    """Return where `mean` and all lower means are refuted at level alpha / 2: int64 [..., 3] to bool [...]."""
    if mean <= 0:
        return np.ones(counts.shape[:-1], bool)
    return log_capital(counts, mean) >= np.log(2 / alpha)


def below(counts: Any, mean: float, alpha: float = ALPHA) -> Any:
    """Return where `mean` and all higher means are refuted at level alpha / 2: int64 [..., 3] to bool [...]."""
    return above(counts[..., ::-1], 1 - mean, alpha)


def interval(values: Any, alpha: float = ALPHA) -> Interval:
    """Return the confidence sequence's interval after all values (float64 [T], each one of VALUES).

    It is the intersection of the intervals after each value.
    """
    counts = np.unique(running_counts(values), axis=0)
    return _least(counts, alpha), 1 - _least(counts[:, ::-1], alpha)


def _least(counts: Any, alpha: float) -> float:
    """Return the largest mean that any of `counts` refutes together with all lower means; 0 if there is none."""
    low, high = 0.0, 1 - EDGE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if above(counts, middle, alpha).any() else (low, middle)
    return low
