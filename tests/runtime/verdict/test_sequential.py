import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.attacks.losses import value_and_cotangent
from runtime.images.image_set import ImageSet
from runtime.records.report import load_report
from runtime.spec import ThreatModel
from runtime.suite import units
from runtime.suite.run import SAMPLE
from runtime.terminal.progress import Silent
from runtime.verdict import sequential
from runtime.verdict.case import growing, verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.sequential import ALPHA, above, below, interval, log_capital, running_counts
from runtime.verdict.subject import Subject
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import EPS, SHAPE, bundle_files, linear_task

RUNS = 10_000


def stops(draws, mean):
    """Return of each run (values [R, T]) when a mean was refuted from below and from above: T where never."""
    counts = np.stack([np.cumsum(draws == value, axis=1) for value in sequential.VALUES], axis=-1)
    base = draws.shape[1] + 1
    seen, places = np.unique(counts @ np.asarray([base * base, base, 1]), return_inverse=True)
    known = np.stack([seen // base**2, seen // base % base, seen % base], axis=-1)
    answers = []
    for refuted in (above(known, mean), below(known, mean)):
        hits = refuted[places].reshape(draws.shape)
        answers.append(np.where(hits.any(axis=1), hits.argmax(axis=1), draws.shape[1]))
    return answers


def most_errors(rate=ALPHA, runs=RUNS):
    return rate + 3 * np.sqrt(rate * (1 - rate) / runs)


@pytest.mark.parametrize("gate", [0.5, 0.9])
def test_at_the_gates_value_the_error_is_at_most_alpha(gate):
    """10,000 runs of 400 images; whatever they decide is an error one way or the other."""
    draws = (np.random.default_rng(0).random((RUNS, 400)) < gate).astype(np.int8)
    passed, failed = stops(draws, gate)
    wrong = (np.minimum(passed, failed) < 400).mean()
    print(f"gate {gate}: {wrong:.4f} of {RUNS} runs decided, limit {most_errors():.4f}")
    assert 0 < wrong <= most_errors()


def test_at_the_largest_drop_the_error_of_the_paired_gate_is_at_most_alpha():
    """10,000 runs of 300 pairs, 6 % of them discordant, with a true drop of 2 points at a gate of 2 points."""
    u = np.random.default_rng(1).random((RUNS, 300))
    draws = np.where(u < 0.02, 1.0, np.where(u < 0.06, 0.0, 0.5))
    passed, failed = stops(draws, (1 - 0.02) / 2)
    wrong = (np.minimum(passed, failed) < 300).mean()
    print(f"paired: {wrong:.4f} of {RUNS} runs decided, limit {most_errors():.4f}")
    assert wrong <= most_errors()


AWAY = {"passes": (0.75, 0.5, 0), "fails": (0.3, 0.5, 1), "passes nearer": (0.75, 0.65, 0)}


@pytest.mark.parametrize("case", AWAY)
def test_away_from_the_gate_runs_decide_soon_and_the_right_way(case):
    truth, gate, right = AWAY[case]
    draws = (np.random.default_rng(2).random((1000, 1000)) < truth).astype(np.int8)
    when = stops(draws, gate)
    print(f"{case}: after {when[right].mean():.0f} images on average")
    assert (when[right] < when[1 - right]).mean() >= 1 - ALPHA
    assert (when[right] < 1000).mean() > 0.99
    assert when[right].mean() < (400 if gate == 0.65 else 100)


def test_a_small_drop_is_told_from_a_large_one():
    u = np.random.default_rng(3).random((500, 1500))
    for drop, right in ((0.0, 0), (0.08, 1)):
        draws = np.where(u < 0.02, 1.0, np.where(u < 0.04 + drop, 0.0, 0.5))
        when = stops(draws, (1 - 0.03) / 2)
        assert (when[right] < 1500).mean() > 0.9
        assert (when[1 - right] < 1500).mean() <= ALPHA


@given(st.lists(st.sampled_from(sequential.VALUES), min_size=1, max_size=60))
def test_the_interval_holds_the_mean_and_only_narrows(values):
    low, high = interval(np.asarray(values))
    assert 0 <= low <= high <= 1
    assert low <= np.mean(values) + 1e-6 or len(values) > 20  # it takes its past into account
    longer = interval(np.asarray([*values, 0.5]))
    assert longer[0] >= low - 1e-6
    assert longer[1] <= high + 1e-6


@given(st.lists(st.sampled_from(sequential.VALUES), max_size=60), st.floats(0.01, 0.98))
def test_capital_falls_as_the_mean_that_is_bet_against_rises(values, mean):
    counts = running_counts(np.asarray(values))
    assert (log_capital(counts, mean) >= log_capital(counts, mean + 0.01) - 1e-9).all()


def test_the_bets_are_fair():
    """Summed over all outcomes of six images, capital times probability is one where the mean is the one bet on."""
    for mean, chances in ((0.3, (0.7, 0.0, 0.3)), (0.45, (0.2, 0.7, 0.1))):
        total = 0.0
        for outcome in itertools.product(range(3), repeat=6):
            counts = np.bincount(outcome, minlength=3)
            total += np.prod([chances[value] for value in outcome]) * np.exp(log_capital(counts, mean))
        assert total == pytest.approx(1)


def test_images_come_in_blocks_that_grow_and_none_twice():
    order = np.random.default_rng(0).permutation(3000)
    blocks = growing(order)
    np.testing.assert_array_equal(np.concatenate(blocks), order)
    sizes = [len(block) for block in blocks]
    assert sizes[:5] == [16] * 5
    assert sizes[:-1] == sorted(sizes[:-1])
    assert max(sizes) == 256
    assert [len(block) for block in growing(order[:5])] == [5]


N = 400
SUITE = ["--attacks", "fgsm,pgd,cw", "--save-adversarial"]
EARLY = [*SUITE, "--until-decided"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("early")
    write_bundle(place / "bundle", bundle_files(linear_task(n=N)), n=N)
    assert edgeproof("verify", place / "bundle", *SUITE, "--out", place / "whole").exit_code == 0
    return place


def evidence(out):
    with np.load(out / "evidence.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("gate", "code"), [("30%", 0), ("95%", 1)])
def test_a_run_stops_as_soon_as_the_gate_is_decided_with_the_rows_of_the_full_run(place, tmp_path, gate, code):
    result = edgeproof("verify", place / "bundle", *EARLY, "--fail-under", gate, "--out", tmp_path / "run")
    assert result.exit_code == code, result.stderr
    read, rows, whole = load_report(tmp_path / "run"), evidence(tmp_path / "run"), evidence(place / "whole")
    judged = read.sequential.judged
    assert judged == read.data.n == read.clean.n == len(rows["index"])
    assert judged < N / 4 if code else SAMPLE <= judged < N  # a pass waits for the checks' whole sample
    assert (read.sequential.of, read.request.n, read.sequential.decided) == (N, N, True)
    assert f"stopped after {judged} of {N} images" in result.stdout
    assert "confidence sequence" in read.reasons[0]
    assert (np.diff(rows["index"]) > 0).all()
    assert rows["index"][-1] > judged
    for name in whole:
        np.testing.assert_array_equal(rows[name], whole[name][rows["index"]])


def test_a_gate_that_is_too_close_is_inconclusive_and_says_what_to_do(place, tmp_path):
    close = load_report(place / "whole").robust_accuracy.value
    result = edgeproof("verify", place / "bundle", *EARLY, "--fail-under", close, "--out", tmp_path / "run")
    assert result.exit_code == 5
    assert f"all {N} images were judged and did not decide the gate: run it without --until-decided" in result.stdout
    ours, theirs = evidence(tmp_path / "run"), evidence(place / "whole")
    for name in theirs:
        assert ours[name].tobytes() == theirs[name].tobytes()


def test_the_paired_gate_stops_early_too_and_claims_no_test(place, tmp_path):
    options = [*EARLY, "--against", place / "whole", "--max-drop", "20%", "--out", tmp_path / "run", "--json"]
    result = edgeproof("verify", place / "bundle", *options)
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["paired"]["mcnemar_p"] is None
    assert report["paired"]["ci95"][0] >= -0.2
    assert report["sequential"]["judged"] < N
    assert "no test, because the run stopped early" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_stops_early_can_be_interrupted_and_goes_on(place, tmp_path, monkeypatch):
    options = [*EARLY, "--fail-under", "30%"]
    assert edgeproof("verify", place / "bundle", *options, "--out", tmp_path / "whole").exit_code == 0
    calls, measure = itertools.count(), units.measure

    def interrupted(*arguments):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return measure(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(units, "measure", interrupted)
        assert edgeproof("verify", place / "bundle", *options, "--out", tmp_path / "run").exit_code == 130
    result = edgeproof("verify", place / "bundle", *options, "--out", tmp_path / "run", "--resume")
    assert "resuming: 6 units of work are done" in result.stderr
    assert (tmp_path / "run" / "evidence.npz").read_bytes() == (tmp_path / "whole" / "evidence.npz").read_bytes()


def test_a_run_does_not_stop_before_the_images_that_it_is_compared_on(place, tmp_path):
    """The other run has three images; the first sixteen in random order need not be among them."""
    options = [*SUITE, "--n", 3, "--out", tmp_path / "three"]
    assert edgeproof("verify", place / "bundle", *options).exit_code == 0
    options = [*EARLY, "--against", tmp_path / "three", "--max-drop", "99%", "--out", tmp_path / "run", "--json"]
    report = json.loads(edgeproof("verify", place / "bundle", *options).stdout)
    assert sum(report["paired"][cell] for cell in ("both", "only_this", "only_that", "neither")) > 0


def test_a_run_that_stopped_early_is_nothing_to_compare_with(place, tmp_path):
    options = [*EARLY, "--fail-under", "30%", "--out", tmp_path / "early"]
    assert edgeproof("verify", place / "bundle", *options).exit_code == 0
    options = [*SUITE, "--against", tmp_path / "early", "--out", tmp_path / "run"]
    result = edgeproof("verify", place / "bundle", *options)
    assert result.exit_code == 3, result.stderr
    assert "stopped early" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [([], "no gate to decide"), (["--fail-under", "50%", "--shard", "1/2"], "cannot judge a shard")],
)
def test_stopping_early_without_a_gate_or_in_shards_is_a_usage_error(place, tmp_path, options, reason):
    result = edgeproof("verify", place / "bundle", *EARLY, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert reason in result.stderr
    assert not (tmp_path / "run").exists()


class Valley(LinearSession):
    """Class 0 but in a narrow valley of the mean pixel, which one step of EPS crosses: the slope leads beyond it."""

    MIDDLE, HALF = 0.5, EPS / 8

    def __init__(self):
        super().__init__(np.zeros((2, 16), np.float32), np.zeros(2, np.float32))

    def _logits(self, x):
        ahead = x.reshape(len(x), -1).mean(axis=1) - np.float32(self.MIDDLE)
        margin = 1e4 * (ahead**2 - self.HALF**2)
        return np.stack([margin, np.zeros_like(margin)], axis=1).astype(np.float32)

    def loss_gradient(self, x, loss):
        z = self._logits(x)
        value, cotangent = value_and_cotangent(z, loss)
        ahead = x.reshape(len(x), -1).mean(axis=1) - np.float32(self.MIDDLE)
        slope = cotangent[:, 0] * 2e4 * ahead / 16
        return z, value, np.broadcast_to(slope[:, None, None, None], x.shape).astype(np.float32)


def valley(gate):
    """Return the report of a run of 400 images, a fifth of which one step does not break, and a blind search does."""
    near = np.random.default_rng(0).random(N) < 0.2
    noise = np.random.default_rng(1).normal(0, EPS / 100, (N, *SHAPE))
    noise -= noise.mean(axis=(1, 2, 3), keepdims=True)
    images = (Valley.MIDDLE + np.where(near, 0.6 * EPS, 5 * EPS)[:, None, None, None] + noise).astype(np.float32)
    of = ImageSet("valley", images, np.zeros(N, int), np.arange(N))
    subject = Subject(Valley(), "valley", ("a", "b"), SHAPE, of, "", ThreatModel(eps=EPS))
    options = VerifyOptions(attacks=("fgsm",), fail_under=gate, until_decided=True)
    return verify(subject, options, Silent()).report


def test_a_run_goes_on_where_what_the_blind_control_broke_leaves_the_gate_open():
    report = valley(0.8)
    assert report.robust_accuracy.value == 1
    assert report.blind_control.broken > 20
    assert report.verdict == "inconclusive"
    assert (report.sequential.judged, report.sequential.decided) == (N, False)
    assert report.sequential.reason.startswith(f"all {N} images were judged")


def test_a_gate_that_a_check_blocks_is_said_to_be_decided_by_the_interval_alone():
    report = valley(0.5)
    assert report.blind_control.broken > 20
    assert SAMPLE <= report.sequential.judged < N
    assert report.verdict == "inconclusive"
    assert {each.check for each in report.warnings if each.blocking} >= {"one-step"}
    why = "the interval alone decides the gate; a check blocks it"
    assert report.sequential.reason == f"stopped after {report.sequential.judged} of {N} images: {why}"
