"""How much of a robust accuracy the attacks may have missed: the smallest fault that each check notices, by one rule.

A gradient may lie in three ways, and each has a test that looks for it. Searches without gradients follow none, and
so look for all three. A fault stays hidden only where both miss it: the better of the two says how much of it there
may be. The fault that is seen worst is taken off the figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runtime.statistics import Hidden, fewest_beyond, smallest_seen
from runtime.suite.scrutiny import most_tolerated, most_unrelated
from runtime.words import percent, points

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.records.report import GradientTest, Searched

BY_CHANCE, LEVEL = 0.005, 0.01
"""Honest networks lose no image to a blind search alone; more than this share explains, at LEVEL, is a finding."""
HOLDS, STEADY, JUMPS = "gradient-holds", "gradient-steady", "margin-jumps"
"""The tests of a gradient: that it is the artifact's, that it is not shattered, that no step hides from it."""
CONTROL = "blind-control"
EVERY_IMAGE = "add square or aa to --attacks, which search every image without a gradient"


class Power(NamedTuple):
    """What a check of n images would have seen with a probability of 95 %: a fault of this share of them."""

    check: str
    n: int
    share: float


def most_by_chance(n: int) -> int:
    """Return how many of n images a blind search may break that no gradient does."""
    return fewest_beyond(n, BY_CHANCE, LEVEL) - 1


def power_of_search(n: int) -> Power:
    """Return what a blind search of n images that stood would have seen."""
    return Power(CONTROL, n, smallest_seen(most_by_chance(n) + 1, n))


def powers_of_tests(test: GradientTest | None) -> tuple[Power, ...]:
    """Return what each test of the gradient would have seen; none of one that was not asked.

    A surrogate is asked for one thing alone: that it has something to do with the artifact.
    """
    if test is None:
        return ()
    if test.surrogate:
        limit = test.n if test.unrelated is None else most_unrelated(test.n)
        return (Power(HOLDS, test.n, smallest_seen(limit + 1, test.n)),)
    asked = ((HOLDS, test.apart_far, test.n), (STEADY, test.unsteady, test.n), (JUMPS, test.jumps, test.lines))
    return tuple(
        Power(name, n, smallest_seen(most_tolerated(n) + 1, n)) for name, failed, n in asked if failed is not None and n
    )


def weakest(search: Power, tests: Iterable[Power]) -> Power:
    """Return the power by which the fault that is seen worst would have been seen: by its test or by the search."""
    best = dict.fromkeys((HOLDS, STEADY, JUMPS), search)
    best.update({test.check: min(search, test, key=_share) for test in tests})
    return max(best.values(), key=_share)


def _share(power: Power) -> float:
    return power.share


def what_hides(
    standing: float, control: Searched | None, test: GradientTest | None = None, *, by_square: bool = False
) -> Hidden:
    """Return how much of the robust accuracy the attacks may have missed, at 95 %.

    The control broke a part of a sample, and may break more of all: the one-sided upper end of Clopper and Pearson
    (1934) counts, the smallest share at which more than these would have fallen. Where Square itself searched every
    image, that is all, and nothing where the control broke none.

    Args:
        standing: robust accuracy, what the attacks left.
        control: how many standing images it searched, and broke, whether gradients from another start break them too or
            not; None where it did not run.
        test: of the gradient, where it was asked.
        by_square: whether Square is one of the attacks.

    """
    searched, broken = (control.n, control.broken) if control else (0, 0)
    fell = standing * smallest_seen(broken + 1, searched) if broken else 0.0
    power = weakest(power_of_search(searched), powers_of_tests(test))
    missed = 0.0 if by_square else standing * power.share
    if fell >= missed:
        remedy = "add aa to --attacks, which finds more" if by_square else EVERY_IMAGE
        found = f"{CONTROL} broke {broken} of {searched} images that no attack broke"
        return Hidden(fell, f"attacks may have missed up to {points(fell)}: {found}; {remedy}")
    why = (
        f"{power.check} tested {power.n} images, too few to notice a fault on less than {percent(power.share)} of them"
    )
    return Hidden(missed, f"attacks may have missed up to {points(missed)}: {why}; judge more images, or {EVERY_IMAGE}")
