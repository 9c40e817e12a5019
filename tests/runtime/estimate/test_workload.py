"""What a run says before it begins: no stage asks more than was planned, and nothing is changed by having timed it."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.estimate.announcement import plan_in_words, time_in_words
from runtime.estimate.workload import Speed, left_of, stages_of, time_passes
from runtime.images.image_set import ImageSet
from runtime.session import GraphFacts, SessionCard
from runtime.spec import ThreatModel
from runtime.suite.campaign import as_file_name
from runtime.suite.journal import NoJournal
from runtime.terminal.progress import Silent
from runtime.verdict.case import LARGEST_BATCH, prepare_case
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from tests.command_line import edgeproof
from tests.fakes import DIGEST, LinearSession
from tests.tiny import EPS, SHAPE, linear_task

N = 90


@pytest.fixture
def quick(monkeypatch):
    for name, settings in {"square": {"queries": 60}, "apgd-ce": {"steps": 10}}.items():
        monkeypatch.setitem(ATTACKS, name, replace(ATTACKS[name], defaults={**ATTACKS[name].defaults, **settings}))


class Int8(LinearSession):
    """Answers in steps, as its card says: it is attacked by Square too, and by its parent's gradient."""

    def card(self):
        return SessionCard(DIGEST, "int8", "fake", "cpu", "fake", facts=GraphFacts(quantised=True))


def case_of(kind, attacks=("fgsm", "pgd"), **options):
    weight, bias, images, labels = linear_task(n=N)
    lender = Parent(weight, bias) if kind is Int8 else None
    images = ImageSet("linear", images, labels, np.arange(N))
    subject = Subject(
        kind(weight, bias), "tiny", ("a", "b", "c"), SHAPE, images, "", ThreatModel(eps=EPS), lender=lender
    )
    return prepare_case(subject, VerifyOptions(attacks=attacks, fail_under=0.01, **options))


class Parent(LinearSession):
    """Runs where its int8 does."""

    def card(self):
        return SessionCard(DIGEST, "fp32", "fake", "cpu", "fake")


class Counting(NoJournal):
    """Counts images and passes by stage."""

    def __init__(self):
        self.images, self.forwards, self.gradients = Counter(), Counter(), Counter()

    def unit(self, name, index, do):
        work, stage = do(), name.rpartition("-")[0]
        self.images[stage] += len(index)
        self.forwards[stage] += work.forwards
        self.gradients[stage] += work.gradients
        return work


@pytest.mark.parametrize("kind", [LinearSession, Int8])
@pytest.mark.parametrize("attacks", [("fgsm", "pgd", "cw"), ("square",), ("apgd-ce",)])
@pytest.mark.parametrize("lattice", [None, "uint8"])
@pytest.mark.usefixtures("quick")
def test_no_stage_of_a_run_asks_more_than_was_planned(kind, attacks, lattice):
    case, counted = case_of(kind, attacks, lattice=lattice), Counting()
    case.attack(Silent(), counted)
    planned = {as_file_name(stage.name): stage for stage in stages_of(case)}
    asked = {stage for stage in counted.images if not stage.startswith("square-")}
    assert asked <= planned.keys()
    for stage in asked:
        assert counted.images[stage] <= planned[stage].images, stage
        assert counted.forwards[stage] <= planned[stage].passes.forwards, stage
        assert counted.gradients[stage] <= planned[stage].passes.gradients, stage
    assert {name for name in planned if name[0].isdigit()} <= asked


@pytest.mark.usefixtures("quick")
def test_stages_come_in_the_order_in_which_the_run_does_them():
    case, counted = case_of(Int8), Counting()
    case.attack(Silent(), counted)
    done = list(counted.images)
    planned = [name for stage in stages_of(case) if (name := as_file_name(stage.name)) in counted.images]
    assert [name for name in done if name in planned] == planned


def test_a_run_that_goes_on_plans_what_is_left():
    stages = list(stages_of(case_of(LinearSession)))
    assert left_of(stages, {}) == stages
    left = left_of(stages, {"clean": N, "0-fgsm": 70, "1-pgd": 50})
    assert [stage.name for stage in left] == [stage.name for stage in stages[2:]]
    assert [stage.images for stage in left] == [N - 50, *(stage.images for stage in stages[3:])]


def test_timing_asks_for_what_will_be_asked_and_no_attack():
    case = case_of(Int8)
    speed = time_passes(case)
    assert speed.gradient.keys() == {"own", "parent"}
    assert min(speed.forward, speed.parent, *speed.gradient.values()) > 0
    assert sum(case.subject.session.calls) == 2 * 32


class Small(LinearSession):
    """Holds ten images at a time."""

    def _logits(self, x):
        if x.shape[0] > 10:
            raise MemoryError
        return super()._logits(x)


def test_a_run_never_asks_again_for_a_batch_that_did_not_fit_while_it_was_timed():
    case = case_of(Small)
    time_passes(case)
    timed = len(case.subject.session.calls)
    findings = case.attack(Silent())
    assert max(case.subject.session.calls[timed:]) == 8
    assert findings.circumstances.device[LARGEST_BATCH] == 8


def test_the_plan_names_gradients_gate_and_what_was_added():
    assert list(plan_in_words(case_of(Int8, max_drop=None))) == [
        f"verify tiny int8 on fake:cpu: {N} images, linf, eps 0.01",
        "  attacks (own gradient): fgsm, pgd",
        "  attacks (the fp32 parent's gradient): fgsm, pgd",
        "  attacks (no gradient): square (added: int8 answers in steps)",
        "  gate: robust accuracy of at least 1.0 %",
    ]


def test_a_long_int8_run_on_a_cpu_says_where_the_time_goes():
    case = case_of(Int8)
    slow = Speed(0.01, {"own": 0.03, "parent": 0.02}, parent=0.005)
    time, int8 = time_in_words(case, list(stages_of(case)), slow)
    assert time.startswith("  time: at most about 1.7 hours, less if attacks break images early (")
    assert "5000 forward passes an image; a forward pass takes 2.0 times as long as in fp32" in int8
    quick = Speed(1e-5, {"own": 3e-5, "parent": 2e-5}, parent=5e-6)
    assert len(list(time_in_words(case, list(stages_of(case)), quick))) == 1


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in ("started", "seconds")}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def test_a_run_finds_the_same_whether_it_was_estimated_or_not(bundle, tmp_path):
    said = []
    for how in ((), ("-q",)):
        result = edgeproof(*how, "verify", bundle, "--attacks", "pgd", "--out", tmp_path / f"run{len(said)}")
        assert result.exit_code == 0, result.stderr
        said.append(result.stderr)
    assert ("time: at most about a minute" in said[0], said[1]) == (True, "")
    first, second = tmp_path / "run0", tmp_path / "run1"
    assert (first / "run.json").read_bytes() == (second / "run.json").read_bytes()
    assert (first / "evidence.npz").read_bytes() == (second / "evidence.npz").read_bytes()
    reports = [without_times(json.loads((run / "report.json").read_text())) for run in (first, second)]
    assert reports[0] == reports[1]
