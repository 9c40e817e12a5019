"""What of a robust accuracy may hide from the checks, by the smallest fault that each of them would have seen."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.checks.power import Power, power_of_search, powers_of_tests, weakest, what_hides
from runtime.images.image_set import ImageSet
from runtime.records.report import GradientTest
from runtime.spec import Gate
from runtime.statistics import decide, wilson
from runtime.suite.evidence import Evidence


def stood(share, n=1000, **fell):
    """Evidence of which a share stood every attack."""
    images = ImageSet("grey", np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, int), np.arange(n))
    blank = Evidence.blank(images, np.arange(0))
    return replace(blank, broken_by=np.where(np.arange(n) < share * n, -1, 0), fell=fell)


def held(n, lines, **changes):
    return GradientTest(n=n, apart_near=0, apart_far=0, unsteady=0, lines=lines, jumps=0).model_copy(update=changes)


@pytest.mark.parametrize(("searched", "points"), [(0, 80.0), (16, 21.2), (64, 7.6), (128, 4.8), (256, 2.8)])
def test_the_fewer_images_are_searched_the_more_may_hide(searched, points):
    assert 100 * what_hides(stood(0.8), searched=searched).points == pytest.approx(points, abs=0.1)


def test_what_blind_searches_broke_is_taken_off_whatever_else_may_hide():
    assert what_hides(stood(0.8), searched=64, broken=32).points == pytest.approx(0.4)
    assert what_hides(stood(0.8), searched=64, broken=1) == what_hides(stood(0.8), searched=64)


def test_where_square_searched_every_image_only_what_fell_is_taken_off():
    square = stood(0.8, square=np.zeros(1000, bool))
    assert what_hides(square, searched=64, broken=32).points == pytest.approx(0.4)
    assert what_hides(square, searched=64).points == what_hides(square, searched=0).points == 0


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
    few = what_hides(stood(0.5), searched=8, test=held(256, 200))
    assert few.points == pytest.approx(0.5 * powers_of_tests(held(256, 200))[2].share)
    assert few.words.startswith(
        "up to 9.9 points may hide: margin-jumps looked at 200 images that stood, and would have"
    )
    assert what_hides(stood(0.5), searched=8).points > few.points


def test_a_test_that_was_not_asked_has_no_power():
    assert powers_of_tests(None) == ()
    assert [power.check for power in powers_of_tests(held(64, 0))] == ["gradient-holds", "gradient-steady"]
    surrogate = GradientTest(n=64, surrogate=True, apart_far=0)
    (power,) = powers_of_tests(surrogate)
    assert power.share == 1  # one of an earlier version
    (power,) = powers_of_tests(surrogate.model_copy(update={"unrelated": 0}))
    assert power.share > power_of_search(64).share


def test_what_may_hide_names_the_check_its_power_and_what_to_do():
    words = what_hides(stood(0.45), searched=86, test=held(115, 110)).words
    assert words == (
        "up to 3.2 points may hide: blind-control looked at 86 images that stood, and would have seen a fault of 7.1 % "
        "of them, no smaller one; judge more images, or add square to --attacks, or judge by aa, to search every image"
    )


JUDGED = {
    "a thousand images, a gate some points under": (1000, 0.45, 0.38, "passed"),
    "a thousand images, a gate at the low end": (1000, 0.45, 0.41, "inconclusive"),
    "sixty images, a gate near the figure": (60, 0.58, 0.40, "inconclusive"),
    "sixty images, a gate far under it": (60, 0.58, 0.20, "passed"),
}


@pytest.mark.parametrize(("n", "robust", "gate", "verdict"), JUDGED.values(), ids=JUDGED)
def test_a_gate_passes_where_the_low_end_less_what_may_hide_reaches_it(n, robust, gate, verdict):
    searched, asked = (round(min(n, most) * robust) for most in (160, 256))
    hidden = what_hides(stood(robust, n), searched=searched, test=held(asked, asked))
    decision = decide(Gate(fail_under=gate), wilson(round(robust * n), n), None, hidden=hidden)
    assert decision.verdict == verdict
    if verdict == "inconclusive":
        assert hidden.words in decision.reasons[0]
    assert wilson(round(robust * n), n)[0] >= gate  # the interval alone would let all of them pass
