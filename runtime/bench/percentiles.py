"""Percentiles of latencies, by the rules of MLPerf LoadGen."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.records.bench import Latency
from runtime.statistics import binomial

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.99
"""The confidence of MLPerf's early-stopping estimate of a percentile."""


def latency(values: Any) -> Latency:
    """Summarise latencies [N]; the result has the same unit."""
    ordered = np.sort(values)
    p50, p90, p99 = percentiles(ordered, (0.5, 0.9, 0.99))
    rank = bound_of_quantile(len(ordered), 0.9, CONFIDENCE)
    return Latency(
        mean=float(ordered.mean()),
        least=float(ordered[0]),
        p50=p50,
        p90=p90,
        p99=p99,
        most=float(ordered[-1]),
        p90_at_most=None if rank is None else float(ordered[rank]),
    )


def percentiles(ordered: Any, fractions: Sequence[float]) -> list[float]:
    """Return the value at place floor(n p), from 0, of n sorted values [N] for each fraction p; n is at least 1."""
    n = len(ordered)
    return [float(ordered[min(int(n * p), n - 1)]) for p in fractions]


def bound_of_quantile(n: int, p: float, confidence: float) -> int | None:
    """Return the rank, from 0, of the smallest of n sorted draws that is an upper bound of the p-quantile.

    Draw k, counted from 1, is below the quantile only if at least k of n draws are, and their number X is binomial
    (n, p). So k is the smallest with P(X < k) >= confidence. None: even the largest draw is not a bound.
    """
    spread = 12 * sqrt(n * p * (1 - p)) + 12
    low = max(0, int(n * p - spread))
    below = 0.0  # P(X < k); the terms below the window sum to less than 1e-30
    for k in range(low, n + 1):
        if below >= confidence:
            return k - 1
        below += binomial(k, n, p)
    return None
