"""The suite on a linear classifier: rows, evidence, curve and counts."""

import numpy as np
import pytest

from runtime.attacks import ATTACKS, CONTROLS
from runtime.images.image_set import ImageSet
from runtime.suite.campaign import Campaign
from runtime.suite.evidence import WRONG_BEFORE, Evidence
from runtime.suite.run import run_suite
from runtime.suite.scrutiny import Scrutiny
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.fakes import FlatFor, LinearSession, LyingGradients, planned
from tests.tiny import EPS


def suite(session, images, attacks=("fgsm", "pgd", "cw"), batch=8):
    target = Target(session, images, 3, batch)
    return run_suite(target, planned(target, attacks), eps=EPS, seed=0, keep_all=True, progress=Silent())


def test_every_attack_of_the_suite_runs_on_all_correctly_classified_images(linear):
    outcome = suite(*linear)
    correct = int(outcome.evidence.correct.sum())
    assert 0 < correct < 60
    assert [row.attacked for row in outcome.attacks] == [correct] * 3
    assert all(row.accuracy == (correct - row.broken) / 60 for row in outcome.attacks)
    assert all(row.gradients >= row.attacked for row in outcome.attacks)


def test_the_worst_case_is_the_union_of_the_attacks(linear):
    session, images = linear
    evidence = suite(session, images).evidence
    alone = [suite(session, images, [name]).evidence.robust for name in ("fgsm", "pgd", "cw")]
    np.testing.assert_array_equal(evidence.robust, np.logical_and.reduce(alone))
    first = np.argmin(alone, axis=0)
    broken = evidence.correct & ~evidence.robust
    np.testing.assert_array_equal(evidence.broken_by[broken], first[broken])


def test_the_evidence_describes_the_points_it_keeps(linear):
    session, images = linear
    evidence = suite(session, images).evidence
    z = session.logits(evidence.adversarial)
    np.testing.assert_array_equal(z.argmax(axis=1), evidence.adversarial_prediction)
    distance = (
        np.abs(evidence.adversarial.astype(np.float64) - images.as_float(slice(None))).reshape(60, -1).max(axis=1)
    )
    np.testing.assert_array_equal(distance, evidence.linf)
    wrong = evidence.broken_by == WRONG_BEFORE
    np.testing.assert_array_equal(evidence.linf[wrong], 0)
    np.testing.assert_array_equal(evidence.adversarial_prediction[wrong], evidence.clean_prediction[wrong])
    assert (evidence.adversarial_prediction[evidence.robust] == evidence.label[evidence.robust]).all()


def test_the_curve_starts_at_clean_accuracy_and_passes_through_pgd(linear):
    outcome = suite(*linear)
    accuracies = [point.accuracy for point in outcome.eps_curve]
    pgd = outcome.attacks[1]
    assert accuracies[0] == outcome.evidence.correct.mean()
    assert accuracies[3] == pgd.accuracy
    assert accuracies == sorted(accuracies, reverse=True)


def test_agreement_counts_where_the_gradient_graph_predicts_otherwise(linear):
    session, images = linear
    whole = suite(session, images).agreement
    assert whole.same_prediction == whole.n
    lying = suite(LyingGradients(session.weight, session.bias), images).agreement
    assert lying.same_prediction < lying.n


def test_the_images_without_a_gradient_are_counted_once(linear):
    session, images = linear
    assert not suite(session, images).evidence.zero_gradient.any()
    flat = FlatFor(session.weight, session.bias)
    marked = images.images.copy()
    marked[:9, 0, 0, 0] = 0.125
    labels = flat.logits(marked).argmax(axis=1)
    evidence = suite(flat, ImageSet("marked", marked, labels, images.ids)).evidence
    np.testing.assert_array_equal(np.flatnonzero(evidence.zero_gradient), np.arange(9))
    assert "zero_gradient" not in evidence.arrays(adversarial=True)


def test_a_clean_run_attacks_nothing(linear):
    outcome = suite(*linear, attacks=())
    assert outcome.attacks == ()
    assert outcome.eps_curve == ()
    assert outcome.agreement is None


def test_a_set_without_one_correct_image_is_no_error(linear):
    session, images = linear
    predicted = session.logits(images.images).argmax(axis=1)
    wrong = ImageSet("wrong", images.images, (predicted + 1) % 3, images.ids)
    outcome = suite(session, wrong)
    assert [row.accuracy for row in outcome.attacks] == [0, 0, 0]


class Forgiving(LinearSession):
    """Answers as the nearest clean image, however it is asked."""

    clean: np.ndarray

    def logits(self, x):
        apart = np.abs(x.reshape(len(x), 1, -1) - self.clean.reshape(1, len(self.clean), -1)).max(axis=2)
        return self._logits(self.clean[apart.argmin(axis=1)])


@pytest.mark.parametrize("attack", [ATTACKS["pgd"], CONTROLS[0]], ids=["by a gradient", "by none"])
def test_a_witness_names_the_images_that_a_judge_alone_holds_right(linear, attack):
    honest, images = linear
    judge = Forgiving(honest.weight, honest.bias)
    judge.clean = images.as_float(slice(None))

    def searched(session):
        evidence = Evidence.blank(images, np.arange(len(images)))
        target = Target(session, images, 3, 64, witness=honest.logits)
        campaign = Campaign(target, evidence, EPS, 0, Silent())
        campaign.classify(evidence.index)
        campaign.attack(attack, 0, gradient_from="own" if attack.uses_gradient else "none")
        return evidence

    told, lied = searched(honest), searched(judge)
    fell = told.correct & ~told.robust
    assert not told.spared.any()
    assert lied.robust[lied.correct].all()
    assert fell.sum() > 10
    assert lied.spared[fell].mean() >= (
        1 if attack.uses_gradient else 0.5
    )  # constant scores lead a blind search nowhere


def test_whom_a_judge_spares_in_the_control_alone_is_in_the_evidence(linear, monkeypatch):
    honest, images = linear
    control = Scrutiny.blind_control

    def finds_the_last(self, index):
        self.evidence.spare(index[-1:], {"broken": np.zeros(1, bool), "spared": np.ones(1, bool)})
        return control(self, index)

    monkeypatch.setattr(Scrutiny, "blind_control", finds_the_last)
    target = Target(honest, images, 3, 64, witness=honest.logits)
    plan = planned(target, ("fgsm",))
    given = {"eps": EPS, "seed": 0, "keep_all": True, "progress": Silent()}
    assert run_suite(target, plan, searched=np.arange(len(images)), **given).evidence.spared.tolist() == [
        *([False] * (len(images) - 1)),
        True,
    ]


@pytest.mark.parametrize("attack", [ATTACKS["pgd"], *CONTROLS], ids=lambda attack: attack.name)
def test_a_judge_that_rounds_is_not_held_for_one_that_forgives(linear, attack):
    """RayS asks outside of the ball too, and ends at the judge's own boundary."""
    honest, images = linear
    noise = np.random.default_rng(0).normal(1, 0.001, honest.weight.shape)
    judge = LinearSession((honest.weight * noise).astype(np.float32), honest.bias)
    evidence = Evidence.blank(images, np.arange(len(images)))
    campaign = Campaign(Target(judge, images, 3, 64, witness=honest.logits), evidence, EPS, 0, Silent())
    campaign.classify(evidence.index)
    campaign.attack(attack, 0, gradient_from="own" if attack.uses_gradient else "none")
    assert (evidence.spared & evidence.robust).sum() <= 1
