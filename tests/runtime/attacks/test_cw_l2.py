"""CW-L2 against what is known exactly, and its place outside the worst case."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.attacks.losses import one_hot
from runtime.attacks.oracle import Oracle, Points
from runtime.images.image_set import ImageSet
from runtime.suite.evidence import STANDS
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.fakes import LinearSession, planned
from tests.tiny import EPS, linear_task

CW_L2 = ATTACKS["cw-l2"]


def points_of(images, labels, classes):
    index = np.arange(len(labels))
    return Points(images, one_hot(labels, classes), labels, index, index)


def run(session, images, labels, classes, **changes):
    attack = replace(CW_L2, defaults={**CW_L2.defaults, **changes})
    oracle = Oracle(session, 64)
    return attack.run(oracle, points_of(images, labels, classes), EPS, 0), oracle


def correct(classes, n=40):
    weight, bias, images, labels = linear_task(classes, n)
    session = LinearSession(weight, bias)
    right = session.logits(images).argmax(axis=1) == labels
    return session, images[right], labels[right]


def distances_to_the_boundary(session, images, labels):
    """Return the least over t of (z_y - z_t) / |w_y - w_t|_2: [N]."""
    difference = session.weight[labels][:, None].astype(float) - session.weight[None]
    gap = np.einsum("nd,nkd->nk", images.reshape(len(labels), -1).astype(float), difference)
    gap += session.bias[labels][:, None].astype(float) - session.bias[None]
    length = np.linalg.norm(difference, axis=2)
    length[np.arange(len(labels)), labels] = np.nan
    return np.nanmin(gap / length, axis=1)


def l2(found, images):
    return np.linalg.norm((found.x.astype(float) - images).reshape(len(images), -1), axis=1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_on_a_linear_model_it_comes_near_the_true_distance_and_never_under_it(classes):
    """Of several classes it may settle at one that is not the nearest: the margin leads to the likeliest."""
    session, images, labels = correct(classes)
    found, _ = run(session, images, labels, classes, constant=1.0, confidence=0.0, lr=0.002)
    truth = distances_to_the_boundary(session, images, labels)
    assert found.broken.all()
    assert (l2(found, images) >= truth - 1e-6).all()
    near = l2(found, images) < 1.02 * truth + 0.004
    assert near.all() if classes == 2 else near.mean() > 0.9


def test_with_a_small_constant_only_what_is_cheaper_than_the_distance_is_broken():
    """Along w the cost d^2 - c (|w| d - m) falls until d = c |w| / 2: the boundary m / |w| is reached where nearer."""
    session, images, labels = correct(2)
    length = np.linalg.norm(session.weight[0].astype(float) - session.weight[1])
    truth = distances_to_the_boundary(session, images, labels)
    constant = 2 * np.median(truth) / length
    found, _ = run(session, images, labels, 2, constant=constant, confidence=1.0)
    away = np.abs(truth - np.median(truth)) > 0.02
    assert (truth < np.median(truth))[away].sum() > 5
    np.testing.assert_array_equal(found.broken[away], (truth < np.median(truth))[away])


def test_confidence_pushes_the_last_iterates_beyond_the_boundary():
    """The nearest misclassified iterate is kept, but the descent itself settles where the margin is `confidence`."""
    session, images, labels = correct(2)
    seen = []

    class Recorder(LinearSession):
        def loss_gradient(self, x, loss):
            z, value, gradient = super().loss_gradient(x, loss)
            seen.append(value)
            return z, value, gradient

    run(Recorder(session.weight, session.bias), images, labels, 2, constant=5.0, confidence=0.3, lr=0.001)
    np.testing.assert_allclose(np.mean(seen[-100:], axis=0), 0.3, atol=0.03)


def test_black_and_white_pixels_move():
    """Where the image is exactly 0 or 1 tanh has no inverse, and an iterate that starts there is stuck."""
    images, labels = np.float32([[[[0.0, 1.0]]]]), np.zeros(1, np.int64)
    weight = np.float32([[-3, 3], [3, -3]])
    session = LinearSession(weight, np.float32([0, 3]))
    found, _ = run(session, images, labels, 2, constant=10.0, steps=1000)
    assert found.broken.all()
    assert l2(found, images)[0] < 1.3 * distances_to_the_boundary(session, images, labels)[0]


def test_it_costs_its_steps_and_two_forwards_an_image_at_the_most_where_both_graphs_agree():
    session, images, labels = correct(3)
    _, oracle = run(session, images, labels, 3, constant=1.0)
    assert oracle.gradients == 1000 * len(labels)
    assert len(labels) <= oracle.forwards <= 2 * len(labels)


class Wolf(LinearSession):
    """Its gradient graph calls every point misclassified."""

    def loss_gradient(self, x, loss):
        z, value, gradient = super().loss_gradient(x, loss)
        return -z, value, gradient


def test_a_gradient_graph_that_cries_wolf_breaks_only_what_the_artifact_misclassifies():
    session, images, labels = correct(3)
    found, _ = run(Wolf(session.weight, session.bias), images, labels, 3, constant=1.0, steps=100)
    np.testing.assert_array_equal(found.broken, session.logits(found.x).argmax(axis=1) != labels)
    assert (l2(found, images)[found.broken] >= distances_to_the_boundary(session, images, labels)[found.broken]).all()


# In the suite.


@pytest.fixture
def strong(monkeypatch):
    monkeypatch.setitem(ATTACKS, "cw-l2", replace(CW_L2, defaults={**CW_L2.defaults, "constant": 1.0, "steps": 300}))


def suite(linear, attacks):
    target = Target(linear[0], linear[1], 3, 64)
    return run_suite(target, planned(target, attacks), eps=EPS, seed=0, keep_all=True, progress=Silent())


@pytest.mark.usefixtures("strong")
def test_it_has_a_row_and_an_accuracy_of_its_own_and_is_no_part_of_the_evidence(linear):
    with_it, without = suite(linear, ("cw-l2", "fgsm", "pgd")), suite(linear, ("fgsm", "pgd"))
    own, *others = with_it.attacks
    correct = int(with_it.evidence.correct.sum())
    assert (own.name, own.attacked, own.broken) == ("cw-l2", correct, correct)
    assert own.accuracy == 0 < with_it.evidence.robust.mean()
    assert [(row.name, row.broken) for row in others] == [(row.name, row.broken) for row in without.attacks]
    assert not (with_it.evidence.broken_by == 0).any()
    for name in ("adversarial_prediction", "linf", "margin", "adversarial"):
        np.testing.assert_array_equal(getattr(with_it.evidence, name), getattr(without.evidence, name))


@pytest.mark.usefixtures("strong")
def test_alone_it_leaves_every_image_standing(linear):
    evidence = suite(linear, ("cw-l2",)).evidence
    assert (evidence.broken_by[evidence.correct] == STANDS).all()
    assert not evidence.linf.any()


def test_whatever_it_finds_lies_in_the_box():
    random = np.random.default_rng(0)
    weight, bias, _, labels = linear_task(3, 20)
    images = random.integers(0, 2, (20, 1, 4, 4)).astype(np.float32)
    found, _ = run(LinearSession(weight, bias), images, labels, 3, constant=10.0, steps=200)
    assert found.broken.any()
    assert found.x.min() >= 0
    assert found.x.max() <= 1


def test_an_image_set_of_one_is_attacked_alone_as_with_others(linear):
    session, images = linear
    chosen = ImageSet("one", images.images[:1], images.labels[:1], images.ids[:1])
    target = Target(session, chosen, 3, 64)
    alone = run_suite(target, planned(target, ("cw-l2",)), eps=EPS, seed=0, keep_all=True, progress=Silent())
    assert alone.attacks[0].attacked == int(alone.evidence.correct.sum())
