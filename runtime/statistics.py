"""Intervals, tests and decisions on fractions of images."""

from __future__ import annotations

from math import exp, lgamma, log, log1p, sqrt
from typing import TYPE_CHECKING, Literal, NamedTuple

from runtime.words import percent, points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.spec import Gate

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
SHARE_HALVINGS = 30

Verdict = Literal["measured", "passed", "failed", "inconclusive"]
"""`measured`: there is no gate, and no blocking check found anything."""
Interval = tuple[float, float]


class Pairs(NamedTuple):
    """Counts of images that are robust in both artifacts, in this one only, in that one only, or in neither."""

    both: int
    only_this: int
    only_that: int
    neither: int

    @property
    def difference(self) -> float:
        """Robust accuracy of this artifact minus that of the other; a negative value is a drop."""
        return (self.only_this - self.only_that) / sum(self)


class Decision(NamedTuple):
    """A verdict, and its reasons as sentences."""

    verdict: Verdict
    reasons: list[str]


class Hidden(NamedTuple):
    """Robust accuracy, as a fraction, that the attacks may have overstated, and a phrase that says why."""

    points: float
    words: str


NOTHING = Hidden(0.0, "attacks missed nothing")


def wilson(successes: int, n: int) -> Interval:
    """Return the 95 % score interval of a proportion, as two fractions (Wilson 1927).

    Args:
        successes: from 0 to n.
        n: at least 1.

    """
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def paired_difference(pairs: Pairs) -> Interval:
    """Return the 95 % interval of the difference of two paired proportions, as two fractions.

    Source: Newcombe 1998, Improved confidence intervals for the difference between binomial proportions based on
    paired data, method 10. It adds squared Wilson intervals, with a continuity-corrected correlation.
    """
    n, phi = sum(pairs), _correlation(pairs)
    this, that = pairs.both + pairs.only_this, pairs.both + pairs.only_that
    (low1, high1), (low2, high2) = wilson(this, n), wilson(that, n)
    down1, up1, down2, up2 = this / n - low1, high1 - this / n, that / n - low2, high2 - that / n
    low = sqrt(max(down1**2 - 2 * phi * down1 * up2 + up2**2, 0.0))
    high = sqrt(max(up1**2 - 2 * phi * up1 * down2 + down2**2, 0.0))
    return pairs.difference - low, pairs.difference + high


def _correlation(pairs: Pairs) -> float:
    a, b, c, d = pairs
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    covariance = float(a * d - b * c)
    corrected = max(covariance - sum(pairs) / 2, 0.0) if covariance > 0 else covariance
    return corrected / sqrt(margins)


def mcnemar(pairs: Pairs) -> float:
    """Return the exact two-sided p-value of McNemar's test: binomial on the discordant pairs, 1 if there are none."""
    discordant = pairs.only_this + pairs.only_that
    term = tail = 1
    for k in range(min(pairs.only_this, pairs.only_that)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, float(2 * tail / 2**discordant))


def at_least(count: int, n: int, p: float) -> float:
    """Return P(X >= count) for a binomial X of n trials with probability p, 0 < p < 1."""
    return 1 - sum(binomial(k, n, p) for k in range(min(count, n + 1)))


def fewest_beyond(n: int, p: float, level: float) -> int:
    """Return the smallest c with P(X >= c) < level for a binomial X of n trials with probability p; n + 1 if none."""
    count, beyond = 0, 1.0
    while count <= n and beyond >= level:
        beyond -= binomial(count, n, p)
        count += 1
    return count


def binomial(k: int, n: int, p: float) -> float:
    """Return P(X = k) for a binomial X of n trials with probability p, 0 < p < 1."""
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log1p(-p))


def smallest_seen(count: int, n: int, power: float = 0.95) -> float:
    """Return the smallest share p with P(X >= count) >= power for a binomial X of n trials; 1 if there is none."""
    low, high = 0.0, 1.0
    for _ in range(SHARE_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if at_least(count, n, middle) >= power else (middle, high)
    return high


def decide(
    gate: Gate,
    robust: Interval | None,
    difference: Interval | None,
    blocking: Sequence[str] = (),
    *,
    unproven: Sequence[str] = (),
    hidden: Hidden = NOTHING,
    interval: str = "95 % interval",
) -> Decision:
    """Judge a run.

    Args:
        gate: what a release must reach; an empty gate gives `measured`.
        robust: 95 % interval of robust accuracy; None if no attack ran.
        difference: 95 % interval of the change against the run compared with; None without a comparison.
        blocking: reasons not to believe the figures; any of them makes the verdict inconclusive.
        unproven: reasons why the run is too weak to pass its gate. It can still fail: more evidence would only break
            more images.
        hidden: what attacks and checks may have missed; a gate must be met even after this is subtracted.
        interval: the name of both intervals in the reasons.

    """
    decisions = []
    if gate.fail_under is not None:
        decisions.append(_fail_under(gate.fail_under, robust, hidden, interval))
    if gate.max_drop is not None:
        decisions.append(_max_drop(gate.max_drop, difference, hidden, interval))
    reasons = [reason for decision in decisions for reason in decision.reasons] or ["no gate: nothing to pass or fail"]
    if blocking:
        return Decision("inconclusive", [*blocking, *reasons])
    if not decisions:
        return Decision("measured", reasons)
    verdicts = {decision.verdict for decision in decisions}
    worst: tuple[Verdict, ...] = ("failed", "inconclusive")
    verdict: Verdict = next((verdict for verdict in worst if verdict in verdicts), "passed")
    if unproven and verdict == "passed":
        return Decision("inconclusive", [*unproven, *reasons])
    return Decision(verdict, reasons)


def _fail_under(least: float, robust: Interval | None, hidden: Hidden, interval: str) -> Decision:
    if robust is None:
        return Decision("inconclusive", ["no attack ran: there is no robust accuracy to judge"])
    low, high = robust
    ends, gate = f"its {interval} ({percent(low)} to {percent(high)})", percent(least)
    if low - hidden.points >= least:
        if least == 0:
            return Decision("passed", ["no robust accuracy is under 0 %: this gate asks nothing of it"])
        return Decision("passed", [f"robust accuracy is at least {gate}: the low end of {ends} reaches it"])
    if high < least:
        return Decision("failed", [f"robust accuracy is under {gate}: the high end of {ends} is below it"])
    if low >= least:
        return Decision("inconclusive", [f"the low end of {ends} reaches {gate}, but {hidden.words}"])
    return Decision(
        "inconclusive", [f"robust accuracy may lie on either side of {gate}: {ends} spans it; judge more images"]
    )


def _max_drop(most: float, difference: Interval | None, hidden: Hidden, interval: str) -> Decision:
    if difference is None:
        return Decision(
            "inconclusive", ["the drop of robust accuracy cannot be judged: there is nothing to compare with"]
        )
    low, high = difference
    ends, gate = f"the {interval} of its change ({points(low)} to {points(high)})", points(most)
    if low - hidden.points >= -most:
        return Decision("passed", [f"robust accuracy dropped by at most {gate}: the low end of {ends} is within"])
    if high < -most:
        return Decision("failed", [f"robust accuracy dropped by more than {gate}: the high end of {ends} is beyond"])
    if low >= -most:
        return Decision("inconclusive", [f"the low end of {ends} is within {gate}, but {hidden.words}"])
    return Decision(
        "inconclusive",
        [f"robust accuracy may have dropped by more or by less than {gate}: {ends} spans it; judge more images"],
    )
