"""How much of the robust accuracy the attacks may have missed: the smallest fault that each check would notice.

A gradient may be false in three ways, each with its own test. Searches without gradients do not depend on it, and so
test for all three. A fault stays hidden only if both its test and the searches miss it, so the better of the two bounds
its size. The largest of the three bounds is subtracted from the robust accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runtime.statistics import Hidden, fewest_beyond, smallest_seen
from runtime.suite.scrutiny import most_tolerated, most_unrelated
from runtime.words import percent, points

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.records.measurements import GradientTest, Searched

BY_CHANCE, LEVEL = 0.005, 0.01
"""Of an honest network, a blind search alone breaks no image. More than this share explains, at LEVEL, is a finding."""
HOLDS, STEADY, JUMPS = "gradient-holds", "gradient-steady", "margin-jumps"
"""The tests of a gradient: it is the artifact's, it is not shattered, and no step is hidden from it."""
CONTROL = "blind-control"
EVERY_IMAGE = "add square or aa to --attacks, which search every image without a gradient"


class Power(NamedTuple):
    """The smallest share of images with a fault that a check of n images notices with a probability of 95 %."""

    check: str
    n: int
    share: float


def most_by_chance(n: int) -> int:
    """Return the most images of n that a blind search alone may break by chance."""
    return fewest_beyond(n, BY_CHANCE, LEVEL) - 1


def power_of_search(n: int) -> Power:
    """Return the power of a blind search of n surviving images."""
    return Power(CONTROL, n, smallest_seen(most_by_chance(n) + 1, n))


def powers_of_tests(test: GradientTest | None) -> tuple[Power, ...]:
    """Return the power of each test of the gradient that ran.

    Of the tests of a surrogate, only one counts: that it is related to the artifact. Its `margin-jumps` notices a class
    that is chosen in one step, but no smaller one.
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
    """Return the power for the fault that is noticed worst; each fault has the better of its test and `search`."""
    best = dict.fromkeys((HOLDS, STEADY, JUMPS), search)
    best.update({test.check: min(search, test, key=_share) for test in tests})
    return max(best.values(), key=_share)


def _share(power: Power) -> float:
    return power.share


def what_hides(
    standing: float, control: Searched | None, test: GradientTest | None = None, *, by_square: bool = False
) -> Hidden:
    """Return how much of the robust accuracy the attacks may have missed, with 95 % confidence.

    The larger of two bounds counts. The first extends what the control broke of its sample to all images, by the
    one-sided upper limit of Clopper and Pearson (1934); it is 0 if the control broke none. The second is the smallest
    fault that the checks notice; it is 0 if Square itself searched every image.

    Args:
        standing: robust accuracy, as a fraction.
        control: the blind control. All images that it broke count, even if gradients from another start break them too.
            None if it did not run.
        test: of the gradient; None if it did not run.
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
