"""The sample that checks look at closer: random, the same in every part of a run, and of every class."""

import numpy as np
import pytest

from runtime.attacks import ATTACKS, CONTROLS, DEFAULT
from runtime.attacks.oracle import Oracle
from runtime.images.image_set import ImageSet
from runtime.session import Batching
from runtime.spec import Shard, ThreatModel
from runtime.suite.journal import NoJournal
from runtime.suite.run import SAMPLE
from runtime.suite.units import Target, repeat
from runtime.terminal.progress import Silent
from runtime.verdict.case import SEARCHED, SEARCHED_SHARE, prepare_case, verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from tests.fakes import LinearSession, OtherAlone, OtherAloneBeside, OtherClassAlone
from tests.tiny import EPS, SHAPE, linear_task

N = 600
GRADIENT = 2.28
"""Passes that a gradient costs of a full-width ResNet-18 (docs/results.md); of others more."""
ASKED = ("gradient-holds-0", "margin-jumps-0", "repeated-passes-0", "gradient-graph-0", "blind-sign-hunter-0")


class Remembering(NoJournal):
    """Keeps which images each unit was about."""

    def __init__(self):
        self.index = {}

    def unit(self, name, index, do):
        self.index[name] = index
        return do()


@pytest.fixture(scope="module")
def by_class():
    """Images sorted by class, whose first 200 are of the first."""
    weight, bias, images, labels = linear_task(n=N)
    order = np.argsort(labels, kind="stable")
    return weight, bias, ImageSet("sorted", images[order], labels[order], np.arange(N))


def asked(by_class, **options):
    """Return which images each unit of a gated run was about, and the outcome."""
    weight, bias, images = by_class
    subject = Subject(LinearSession(weight, bias), "tiny", ("a", "b", "c"), SHAPE, images, "", ThreatModel(eps=EPS))
    ledger = Remembering()
    case = prepare_case(subject, VerifyOptions(attacks=("fgsm", "pgd"), fail_under=0.01, **options))
    return ledger.index, case.attack(Silent(), ledger).outcome


def test_a_set_sorted_by_class_is_sampled_in_every_class(by_class):
    index, outcome = asked(by_class)
    labels = by_class[2].labels
    for name in (*ASKED, *(name for name in index if name.startswith("curve-1-"))):
        assert set(labels[index[name]]) == {0, 1, 2}, name
    assert outcome.eps_curve[0].n == outcome.far.n == outcome.probe.n == SAMPLE
    assert outcome.gradient_test.lines > 0.9 * outcome.gradient_test.n
    share = np.bincount(labels[index["repeated-passes-0"]]) / SAMPLE
    np.testing.assert_allclose(share, np.bincount(labels) / N, atol=0.08)


def test_the_sample_is_that_of_the_seed_in_one_run_in_shards_and_in_a_run_that_may_stop_early(by_class):
    whole, _ = asked(by_class)
    parts = [asked(by_class, shard=Shard(number, 3))[0] for number in (1, 2, 3)]
    early, outcome = asked(by_class, until_decided=True)
    other, _ = asked(by_class, seed=1)
    for name in ("repeated-passes-0", "blind-sign-hunter-0"):
        np.testing.assert_array_equal(np.sort(np.concatenate([part[name] for part in parts])), whole[name])
        assert not np.array_equal(other[name], whole[name])
        np.testing.assert_array_equal(early[name], whole[name])
    assert len(outcome.evidence) < N  # it stopped


@pytest.mark.parametrize(("n", "searched"), [(100, 100), (600, SEARCHED), (2000, 166), (10_000, 833)])
def test_the_blind_control_searches_a_share_and_no_less_than_what_would_see_something(n, searched):
    images = ImageSet("grey", np.zeros((n, 1, 4, 4), np.uint8), np.arange(n) % 3, np.arange(n))
    weight, bias, *_ = linear_task()
    subject = Subject(LinearSession(weight, bias), "tiny", ("a", "b", "c"), SHAPE, images, "", ThreatModel(eps=EPS))
    assert len(prepare_case(subject, VerifyOptions(fail_under=0.5)).searched) == searched


def test_that_share_costs_at_most_a_fifth_of_the_default_suite():
    """In passes of an image that survives, of which a gradient takes as many as the least that was measured."""
    suite = sum(1 + GRADIENT * ATTACKS[name].defaults.get("steps", 1) for name in DEFAULT)
    control = sum(attack.defaults["queries"] for attack in CONTROLS) + len(CONTROLS)
    assert SEARCHED_SHARE * control <= suite / 5
    assert SEARCHED <= 2000 * SEARCHED_SHARE


@pytest.mark.parametrize("batching", [Batching(), Batching(512, full=True)], ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [(LinearSession, "passed"), (OtherAlone, "inconclusive"), (OtherAloneBeside, "inconclusive")],
)
def test_no_gate_passes_on_what_a_batch_is_answered_and_an_image_alone_is_not(
    by_class, kind, verdict, batching, monkeypatch
):
    monkeypatch.setattr(kind, "batching", lambda self, image: batching)
    weight, bias, images = by_class
    subject = Subject(kind(weight, bias), "tiny", ("a", "b", "c"), SHAPE, images, "", ThreatModel(eps=EPS))
    report = verify(subject, VerifyOptions(attacks=("fgsm", "pgd"), fail_under=0.01), Silent()).report
    assert report.verdict == verdict
    found = [each.message for each in report.checks if each.state == "found" and each.check == "randomised"]
    assert any("another answer in a batch than alone" in message for message in found) == (kind is not LinearSession)


def test_an_image_of_another_class_alone_is_answered_otherwise_however_large_the_logits(by_class):
    weight, bias, images = by_class
    target = Target(OtherClassAlone(weight, bias), images, 4, 64)
    work = repeat(Oracle(target.session, 64), target, target.points(np.arange(32)))
    assert work["otherwise_alone"].sum() > 16
