"""The whole suite in large batches, side by side and filled up: the same evidence, in few sizes, at the same cost."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.batches import fixed_sizes
from runtime.batches.fixed_sizes import FixedSizes, fixed_size
from runtime.images.image_set import ImageSet
from runtime.session import Batching
from runtime.spec import ThreatModel
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from runtime.verdict.case import prepare_case
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from tests.fakes import LinearSession, planned

EPS, CLASSES, N = 0.02, 5, 400


@pytest.fixture(scope="module")
def case():
    """(Weight, bias, images): every attack breaks some, the last breaks some, and none breaks some."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(CLASSES, 48)).astype(np.float32)
    images = random.uniform(0.1, 0.9, (N, 3, 4, 4)).astype(np.float32)
    labels = LinearSession(weight, np.zeros(CLASSES, np.float32)).logits(images).argmax(axis=1)
    labels[::11] = 0
    return weight, np.zeros(CLASSES, np.float32), ImageSet("many", images, labels, np.arange(N))


@pytest.fixture(autouse=True)
def shorter(monkeypatch):
    for name, changed in (("square", {"queries": 60}), ("fab-t", {"steps": 15}), ("cw-l2", {"steps": 30})):
        attack = ATTACKS[name]
        monkeypatch.setitem(ATTACKS, name, replace(attack, defaults={**attack.defaults, **changed}))
    for name in ("apgd-ce", "apgd-t"):
        attack = ATTACKS[name]
        monkeypatch.setitem(ATTACKS, name, replace(attack, defaults={**attack.defaults, "steps": 25}))


class Counting(LinearSession):
    """Notes the sizes of the batches that it sees; asked as a GPU."""

    def __init__(self, weight, bias, largest=None):
        super().__init__(weight, bias)
        self.sizes, self.largest = [], largest

    def loss_gradient(self, x, loss):
        self.sizes.append(len(x))
        return super().loss_gradient(x, loss)

    def logits(self, x):
        self.sizes.append(len(x))
        return super().logits(x)

    def batching(self, image):
        return Batching(self.largest, full=True)


def suite(case, session, batch):
    target = Target(session, case[2], CLASSES, batch, full=True)
    plan = planned(target, ("fgsm", "pgd", "cw", "cw-l2", "aa"))
    return run_suite(
        target, plan, eps=EPS, seed=3, keep_all=True, progress=Silent(), lattice=True, searched=np.arange(N)
    )


def told(outcome):
    """All that an outcome says, but how long it took."""
    evidence = {name: (array.dtype, array.tobytes()) for name, array in outcome.evidence.everything().items()}
    rows = [row.model_copy(update={"seconds": 0}) for row in outcome.attacks]
    blind = outcome.blind_control.model_copy(update={"seconds": 0})
    return evidence, rows, blind, outcome.eps_curve, outcome.far, outcome.agreement, outcome.gradient_test


@pytest.fixture(scope="module")
def alone(case):
    """What the suite finds unit by unit, and the sizes of batches that it asks."""
    with pytest.MonkeyPatch.context() as patch:
        shorter.__wrapped__(patch)
        session = Counting(*case[:2])
        return told(suite(case, session, 64)), session.sizes


def test_the_suite_is_no_trivial_one(alone):
    rows = {row.name: row for row in alone[0][1]}
    assert 30 < rows["aa"].broken < rows["aa"].attacked - 30
    assert len({row.broken for row in rows.values()}) > 2


@pytest.mark.parametrize("batch", [128, 200, 512])
def test_side_by_side_the_suite_finds_the_same_to_the_bit_for_the_same_passes(case, alone, batch):
    session = Counting(*case[:2])
    assert told(suite(case, session, batch)) == alone[0]
    assert sum(session.sizes) == sum(alone[1])
    assert max(session.sizes) <= batch
    assert len(session.sizes) < len(alone[1])


def test_a_provider_is_shown_twelve_sizes_by_the_whole_suite(case, alone):
    session = Counting(*case[:2])
    assert told(suite(case, FixedSizes(session, 512), 512)) == alone[0]
    assert len(set(session.sizes)) <= 12 < len(set(alone[1]))
    assert set(session.sizes) <= {fixed_size(n) for n in range(1, 513)}
    assert sum(session.sizes) < 2 * sum(alone[1])


def filled_with_nan(rows, size):
    return np.concatenate([rows, np.full((size - len(rows), *rows.shape[1:]), np.nan, np.float32)])


@pytest.mark.parametrize("filled", [fixed_sizes.filled, filled_with_nan])
def test_a_verdict_on_a_gpu_is_drawn_in_its_batch_and_its_sizes_and_no_copy_is_judged(case, filled, monkeypatch):
    monkeypatch.setattr(fixed_sizes, "filled", filled)
    found = {}
    for name, session in (("cpu", LinearSession(*case[:2])), ("gpu", Counting(*case[:2], largest=256))):
        subject = Subject(session, "many", tuple("abcde"), (3, 4, 4), case[2], "edgeproof it", ThreatModel(eps=EPS))
        asked = prepare_case(subject, VerifyOptions(attacks=("pgd", "cw"), fail_under=0.01))
        found[name] = asked.request.batch, told(asked.attack(Silent()).outcome)
    assert [batch for batch, _ in found.values()] == [64, 256]
    assert found["cpu"][1] == found["gpu"][1]
    assert set(session.sizes) <= {1, 16, 24, 32, 48, 64, 96, 128, 192, 256}
