"""What of a robust accuracy may hide from the checks, by the smallest fault that each of them would have seen."""

from functools import cache, partial

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom

from runtime.checks.power import Power, power_of_search, powers_of_tests, weakest, what_hides
from runtime.records.measurements import GradientTest, Searched
from runtime.spec import Gate
from runtime.statistics import Hidden, decide, wilson
from runtime.verdict.case import SEARCHED, SEARCHED_SHARE


def control(n, broken=0):
    """What the blind control found of n images."""
    return Searched(n=n, broken=broken, alone=0, by={}, seconds=0, forwards=0, gradients=0)


def held(n, lines, **changes):
    return GradientTest(n=n, apart_near=0, apart_far=0, unsteady=0, lines=lines, jumps=0).model_copy(update=changes)


@pytest.mark.parametrize(("searched", "points"), [(0, 80.0), (16, 21.2), (64, 7.6), (128, 4.8), (256, 2.8)])
def test_the_fewer_images_are_searched_the_more_may_hide(searched, points):
    assert 100 * what_hides(0.8, control(searched)).points == pytest.approx(points, abs=0.1)


def clopper_pearson(broken, n):
    """The one-sided upper end at 95 %, by its definition: the share at which so few or fewer fall once in twenty."""
    return brentq(lambda share: binom.cdf(broken, n, share) - 0.05, 1e-9, 1 - 1e-9)


def test_the_most_that_blind_searches_can_break_is_taken_off_whatever_else_may_hide():
    assert what_hides(0.8, control(64, 32)).points == pytest.approx(0.8 * clopper_pearson(32, 64))
    assert what_hides(0.8, control(64, 64)).points == pytest.approx(0.8)
    for seen_anyway in (1, 2):
        assert what_hides(0.8, control(64, seen_anyway)).points == what_hides(0.8, control(64)).points


def test_where_square_searched_every_image_only_what_fell_is_taken_off():
    square = partial(what_hides, 0.8, by_square=True)
    for broken in (1, 32):
        points = square(control(64, broken)).points
        assert points == pytest.approx(0.8 * clopper_pearson(broken, 64))
    assert square(control(64)).points == square(None).points == 0


TRUTHS = {
    "the control breaks nothing": (1000, 0.5, 0.0, False),
    "one in fifty": (1000, 0.5, 0.02, False),
    "one in five": (1000, 0.5, 0.2, False),
    "one in five of many": (10_000, 0.5, 0.2, False),
    "half of what nearly all survive": (1000, 0.95, 0.5, False),
    "one in two hundred, after Square": (10_000, 0.5, 0.005, True),
    "one in twenty, after Square": (1000, 0.7, 0.05, True),
}


@pytest.mark.parametrize(("n", "standing", "falls", "square"), TRUTHS.values(), ids=TRUTHS)
def test_a_gate_just_above_the_truth_passes_at_most_once_in_twenty_times(n, standing, falls, square):
    """What survives is drawn, and what the control breaks of a sample; the truth is what it would leave of all."""
    random, passed, runs = np.random.default_rng(0), 0, 2000
    gate = Gate(fail_under=standing * (1 - falls) + 1e-9)
    searched = round(max(SEARCHED, SEARCHED_SHARE * n) * standing)
    share = cache(lambda broken: what_hides(1.0, control(searched, broken), by_square=square).points)
    for _ in range(runs):
        stands, broken = random.binomial(n, standing), random.binomial(searched, falls)
        hidden = Hidden(share(broken) * stands / n, "something may hide")
        passed += decide(gate, wilson(stands, n), None, hidden=hidden).verdict == "passed"
    assert passed <= 0.05 * runs


def test_a_fault_hides_as_far_as_the_better_of_its_test_and_the_search_lets_it():
    search, tests = Power("blind-control", 10, 0.3), [Power("gradient-holds", 90, 0.2), Power("margin-jumps", 40, 0.4)]
    everything = [*tests, Power("gradient-steady", 90, 0.2)]
    assert weakest(search, everything) == search  # margin-jumps is coarser
    assert weakest(replace_share(search, 0.1), everything) == replace_share(search, 0.1)
    assert weakest(replace_share(search, 0.5), everything) == tests[1]
    assert weakest(replace_share(search, 0.5), tests) == replace_share(search, 0.5)  # of shattering nothing was asked


def replace_share(power, share):
    return power._replace(share=share)


def test_tests_of_the_gradient_count_where_the_search_saw_less():
    few = what_hides(0.5, control(8), held(256, 200))
    assert few.points == pytest.approx(0.5 * powers_of_tests(held(256, 200))[2].share)
    assert few.words.startswith("attacks may have missed up to 9.9 points: margin-jumps tested 200 images, too few to")
    assert what_hides(0.5, control(8)).points > few.points


def test_a_test_that_was_not_asked_has_no_power():
    assert powers_of_tests(None) == ()
    assert [power.check for power in powers_of_tests(held(64, 0))] == ["gradient-holds", "gradient-steady"]
    surrogate = GradientTest(n=64, surrogate=True, apart_far=0)
    (power,) = powers_of_tests(surrogate)
    assert power.share == 1  # one of an earlier version
    (power,) = powers_of_tests(surrogate.model_copy(update={"unrelated": 0}))
    assert power.share > power_of_search(64).share


def test_what_may_hide_names_the_check_its_power_and_what_to_do():
    words = what_hides(0.45, control(86), held(115, 110)).words
    assert words == (
        "attacks may have missed up to 3.2 points: blind-control tested 86 images, too few to notice a fault on less "
        "than 7.1 % of them; judge more images, or add square or aa to --attacks, which search every image without a "
        "gradient"
    )


JUDGED = {
    "a thousand images, a gate some points under": (1000, 0.45, 0.38, 0, "passed"),
    "a thousand images, of which the control breaks a few": (1000, 0.45, 0.38, 2, "passed"),
    "a thousand images, a gate at the low end": (1000, 0.45, 0.41, 0, "inconclusive"),
    "sixty images, a gate near the figure": (60, 0.58, 0.40, 0, "inconclusive"),
    "sixty images, a gate far under it": (60, 0.58, 0.20, 0, "passed"),
}


@pytest.mark.parametrize(("n", "robust", "gate", "broken", "verdict"), JUDGED.values(), ids=JUDGED)
def test_a_gate_passes_where_the_low_end_less_what_may_hide_reaches_it(n, robust, gate, broken, verdict):
    searched, asked = (round(min(n, most) * robust) for most in (160, 256))
    hidden = what_hides(robust, control(searched, broken), held(asked, asked))
    decision = decide(Gate(fail_under=gate), wilson(round(robust * n), n), None, hidden=hidden)
    assert decision.verdict == verdict
    if verdict == "inconclusive":
        assert hidden.words in decision.reasons[0]
    assert wilson(round(robust * n), n)[0] >= gate  # the interval alone would let all of them pass
