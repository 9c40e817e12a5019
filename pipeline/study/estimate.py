"""Means over seeds, and which differences are more than noise."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from math import sqrt

TIE = 2.0
"""A difference below this number of standard errors is a tie."""

ROUNDING = 1e-12
"""The largest rounding error of a difference of means; one image of a million is far more."""


@dataclass(frozen=True)
class Estimate:
    """One accuracy over seeds.

    Args:
        values: one per seed, as fractions of `images`.
        images: the number of test images on which each value was measured.

    """

    values: tuple[float, ...]
    images: int

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds (n - 1); None for one seed."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Difference:
    """One mean minus another. The standard error is None if either has only one seed, which allows no conclusion."""

    value: float
    error: float | None

    @property
    def tie(self) -> bool:
        """Whether the difference is under two standard errors, up to rounding; False without a standard error."""
        return self.error is not None and abs(self.value) < TIE * self.error + ROUNDING


def difference(this: Estimate, that: Estimate) -> Difference:
    """Compare two means, their seeds taken as independent: sqrt(s1^2 / n1 + s2^2 / n2).

    The standard error is at least half an image of the smaller set. A few seeds that happen to agree have a spread of
    0, but this is not certainty. So only a difference of more than one image is not a tie.
    """
    value = this.mean - that.mean
    if this.spread is None or that.spread is None:
        return Difference(value, None)
    error = sqrt(this.spread**2 / this.n + that.spread**2 / that.n)
    return Difference(value, max(error, 0.5 / min(this.images, that.images)))
