from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.spec import Gate
from runtime.statistics import Pairs, decide, mcnemar, paired_difference, wilson

counts = st.integers(0, 300)


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_gives_newcombes_published_intervals(successes, n, expected):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3."""
    assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_holds_the_fraction_and_mirrors(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (Pairs(20, 12, 2, 16), (0.0562, 0.3292)),  # Newcombe 1998, paired data, method 10
        (Pairs(1, 1, 7, 12), (-0.507, -0.026)),  # Bentur et al. 2009, in Fagerland et al. 2014
    ],
)
def test_paired_difference_gives_published_intervals(pairs, expected):
    assert paired_difference(pairs) == pytest.approx(expected, abs=5e-4)


@given(counts, counts, counts, counts)
def test_paired_difference_holds_the_difference_and_turns_with_the_pair(both, this, that, neither):
    pairs = Pairs(both + 1, this, that, neither)
    low, high = paired_difference(pairs)
    assert low - 1e-12 <= pairs.difference <= high + 1e-12
    mirrored = paired_difference(Pairs(both + 1, that, this, neither))
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)


def test_identical_runs_differ_by_nothing_and_are_known_the_better_the_more_there_are():
    few, many = (paired_difference(Pairs(n, 0, 0, n)) for n in (20, 2000))
    assert few[0] < many[0] < 0 < many[1] < few[1]


@pytest.mark.parametrize(("this", "that", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (1, 9, 22 / 1024)])
def test_mcnemar_is_the_exact_binomial(this, that, p):
    assert mcnemar(Pairs(10, this, that, 10)) == pytest.approx(p)
    assert mcnemar(Pairs(10, that, this, 10)) == pytest.approx(p)


def test_mcnemar_survives_thousands_of_discordant_pairs():
    tail = sum(comb(3000, k) for k in range(1401))
    assert mcnemar(Pairs(0, 1400, 1600, 0)) == pytest.approx(2 * tail / 2**3000)


@pytest.mark.parametrize(
    ("robust", "verdict"), [((0.45, 0.6), "passed"), ((0.3, 0.4499), "failed"), ((0.44, 0.45), "inconclusive")]
)
def test_fail_under_is_decided_on_the_ends_of_the_interval(robust, verdict):
    assert decide(Gate(fail_under=0.45), robust, None, []).verdict == verdict


def test_a_gate_of_0_percent_says_that_it_asks_nothing():
    passed = decide(Gate(fail_under=0), (0.0, 0.01), None, [])
    assert passed == ("passed", ["no robust accuracy is under 0 %: this gate asks nothing of it"])


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [((-0.01, 0.02), "passed"), ((-0.05, -0.011), "failed"), ((-0.02, 0.0), "inconclusive"), (None, "inconclusive")],
)
def test_max_drop_is_decided_on_the_ends_of_the_interval(difference, verdict):
    decision = decide(Gate(max_drop=0.01), (0.5, 0.6), difference, [])
    assert decision.verdict == verdict
    assert ("judge more images" in decision.reasons[0]) is (verdict == "inconclusive" and difference is not None)


@pytest.mark.parametrize(
    ("difference", "verdict"), [((0.0, 0.1), "passed"), ((-0.2, -0.1), "failed"), ((-0.1, 0.1), "inconclusive")]
)
def test_both_gates_must_pass(difference, verdict):
    decision = decide(Gate(fail_under=0.4, max_drop=0.01), (0.5, 0.6), difference, [])
    assert decision.verdict == verdict
    assert len(decision.reasons) == 2


def test_a_failed_gate_outweighs_an_undecided_one():
    assert decide(Gate(fail_under=0.55, max_drop=0.01), (0.5, 0.6), (-0.2, -0.1), []).verdict == "failed"


def test_no_gate_passes_and_says_so():
    assert decide(Gate(), (0.1, 0.2), None, []) == ("measured", ["no gate: nothing to pass or fail"])


def test_a_blocking_finding_leaves_no_verdict():
    decision = decide(Gate(fail_under=0.1), (0.5, 0.6), None, ["the output is random"])
    assert decision.verdict == "inconclusive"
    assert decision.reasons[0] == "the output is random"


def test_a_gate_without_an_attack_is_not_passed():
    assert decide(Gate(fail_under=0.1), None, None, []).verdict == "inconclusive"
