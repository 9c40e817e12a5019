"""APGD, FAB, Square and AutoAttack against what can be known exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.attacks import ATTACKS, stages
from runtime.attacks.apgd import Climb, check_periods, edge_start
from runtime.attacks.geometry import move_to_hyperplane
from runtime.attacks.losses import one_hot, value_and_cotangent
from runtime.attacks.noise import Noise
from runtime.attacks.oracle import Oracle, Points
from runtime.attacks.square import side, stripes, window
from runtime.attacks.targets import wrong_classes
from runtime.errors import BadModel
from runtime.images.image_set import ImageSet
from runtime.session import SessionCard
from runtime.suite.evidence import STANDS
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.fakes import LinearSession, planned
from tests.tiny import EPS, linear_task

MEMBERS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")
every_member = pytest.mark.parametrize("name", MEMBERS)


def points_of(images, labels, classes):
    index = np.arange(len(labels))
    return Points(images, one_hot(labels, classes), labels, index, index)


def attack(name, session, images, labels, classes, *, eps, queries=1000):
    """Run one attack; return what it found and the oracle that it asked."""
    chosen = ATTACKS[name].fitted(classes)
    if name == "square":
        chosen = replace(chosen, defaults={**chosen.defaults, "queries": queries})
    oracle = Oracle(session, 64)
    return chosen.run(oracle, points_of(images, labels, classes), eps, 0), oracle


# Linear models: the distance to the boundary is known in closed form.


@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
@pytest.mark.parametrize("classes", [4, 6])
def test_targeted_attacks_break_exactly_what_the_closed_form_says(name, classes):
    weight, bias, images, labels = linear_task(classes, 120)
    session = LinearSession(weight, bias)
    right = session.logits(images).argmax(axis=1) == labels
    found, _ = attack(name, session, images[right], labels[right], classes, eps=0.02)
    expected = session.margins(images[right], labels[right]) < 0.02
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(found.broken, expected)


# A two-layer network of two pixels: its margin is linear between lines, so it is highest where two of them cross.


class OfFloat32:
    def card(self):
        return SessionCard("0" * 64, "fp32", "fake", "fake", "fake")


class TwoLayers(OfFloat32):
    """z = V relu(U x + u) + v on images of two pixels."""

    def __init__(self, classes, hidden, seed):
        random = np.random.default_rng(seed)
        self.u, self.v = (random.normal(size=size).astype(np.float32) for size in ((hidden, 2), (classes, hidden)))
        self.bias = (-self.u @ random.uniform(0.3, 0.7, (2, hidden))).diagonal().astype(np.float32)

    def logits(self, x):
        return np.maximum(self._hidden(x), 0) @ self.v.T

    def loss_gradient(self, x, loss):
        z = self.logits(x)
        value, cotangent = value_and_cotangent(z, loss)
        gradient = (cotangent @ self.v * (self._hidden(x) > 0)) @ self.u
        return z, value, gradient.astype(np.float32).reshape(x.shape)

    def _hidden(self, x):
        return x.reshape(len(x), 2) @ self.u.T + self.bias

    def highest_margin(self, x, label, eps):
        """Return max over the ball of max_{j != y} z_j - z_y, in float64."""
        low, high = np.maximum(x - eps, 0).astype(float), np.minimum(x + eps, 1).astype(float)
        edges = [(1, 0, low[0]), (1, 0, high[0]), (0, 1, low[1]), (0, 1, high[1])]
        kinks = [(*row, -bias) for row, bias in zip(self.u.astype(float), self.bias.astype(float), strict=True)]
        lines = np.array(edges + kinks)
        candidates = []
        for i in range(len(lines)):
            for j in range(i):
                pair = lines[[i, j]]
                if abs(np.linalg.det(pair[:, :2])) > 1e-12:
                    candidates.append(np.linalg.solve(pair[:, :2], pair[:, 2]))
        inside = [
            np.clip(point, low, high)
            for point in candidates
            if (point > low - 1e-9).all() and (point < high + 1e-9).all()
        ]
        z = np.maximum(np.array(inside) @ self.u.T.astype(float) + self.bias, 0) @ self.v.T.astype(float)
        return (np.delete(z, label, axis=1).max(axis=1) - z[:, label]).max()


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_a_two_layer_network_is_broken_where_its_exact_solution_says_so(classes):
    """Never where it is proven robust; where it is not, by at least one attack of AutoAttack."""
    session, eps = TwoLayers(classes, 6, seed=classes), 0.08
    images = np.random.default_rng(0).uniform(0, 1, (60, 1, 1, 2)).astype(np.float32)
    labels = session.logits(images).argmax(axis=1)
    pairs = zip(images.reshape(-1, 2), labels, strict=True)
    exact = np.array([session.highest_margin(x, label, eps) for x, label in pairs])
    broken = np.zeros(len(labels), bool)
    for member in stages("aa", classes):
        found, _ = attack(member.name, session, images, labels, classes, eps=eps, queries=500)
        assert not found.broken[exact < -1e-5].any(), member.name
        broken |= found.broken
    assert 5 <= (exact > 1e-5).sum() <= 55
    assert broken[exact > 1e-5].all()


# Points planted on purpose.


class Planted(OfFloat32):
    """Class 0 but within 0.05 eps, on average over the pixels, of one planted point, where it is class 1."""

    def __init__(self, point, eps, classes):
        self.point, self.radius, self.classes = point, 0.05 * eps, classes

    def logits(self, x):
        return self._logits(np.abs(x - self.point).mean(axis=(1, 2, 3)))

    def loss_gradient(self, x, loss):
        z = self.logits(x)
        value, cotangent = value_and_cotangent(z, loss)
        slope = -cotangent[:, 1] / x[0].size
        return z, value, (slope[:, None, None, None] * np.sign(x - self.point)).astype(np.float32)

    def _logits(self, distance):
        z = np.full((len(distance), self.classes), -1.0, np.float32)
        z[:, 0], z[:, 1] = 0, self.radius - distance
        return z


@every_member
@pytest.mark.parametrize("seed", range(4))
def test_a_planted_point_is_found(name, seed):
    eps = 0.1
    image = np.full((1, 1, 5, 5), 0.5, np.float32)
    corner = np.random.default_rng(seed).choice(np.float32([-eps, eps]), image.shape)
    session = Planted(image + corner, eps, 4)
    found, _ = attack(name, session, image, np.zeros(1, int), 4, eps=eps, queries=2500)
    assert found.broken.all()
    assert found.prediction[0] == 1


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_logits_that_tie_break_nothing_and_stop_nothing(classes):
    session = LinearSession(np.zeros((classes, 16), np.float32), np.zeros(classes, np.float32))
    images = np.random.default_rng(0).random((3, 1, 4, 4), np.float32)
    for member in stages("aa", classes):
        found, _ = attack(member.name, session, images, np.zeros(3, int), classes, eps=0.1, queries=50)
        assert not found.broken.any()
        assert (found.margin == 0).all()


# APGD


def test_apgd_checks_its_step_when_the_paper_does():
    periods = check_periods(100)
    assert list(periods) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(periods.values()) == [22, 19, 16, 13, 10, 7, 6, 6]


def climb_of(rises, halved, best, checked):
    image = np.zeros((len(rises), 1, 1, 1), np.float32)
    values = [np.float32(value) for value in (best, best, checked, np.ones(len(rises)))]
    return Climb(image, image, image, image + 1, image + 2, *values, np.array(rises), np.array(halved))


def test_apgd_halves_the_step_where_the_loss_rarely_rose_or_its_best_stands_still():
    climb = climb_of([15, 16, 20, 20], [False, False, False, True], best=[9, 9, 5, 5], checked=[5, 5, 5, 5])
    climb.check(period=20, rho=0.75)
    np.testing.assert_array_equal(climb.step, [0.5, 1, 0.5, 1])
    np.testing.assert_array_equal(climb.halved, [True, False, True, False])
    np.testing.assert_array_equal(climb.x[:, 0, 0, 0], [1, 0, 1, 0])
    np.testing.assert_array_equal(climb.gradient[:, 0, 0, 0], [2, 0, 2, 0])
    np.testing.assert_array_equal(climb.rises, 0)


def test_apgd_starts_on_the_edge_of_the_ball():
    images = np.full((5, 3, 4, 4), 0.5, np.float32)
    start = edge_start(points_of(images, np.zeros(5, int), 2), 0.1, Noise(0, "apgd-ce"))
    np.testing.assert_allclose(np.abs(start - images).max(axis=(1, 2, 3)), 0.1, atol=1e-6)
    assert np.abs(start - images).mean() < 0.07


@pytest.mark.parametrize(("name", "gradients", "forwards"), [("apgd-ce", 101, 1), ("apgd-t", 303, 4)])
def test_apgd_costs_101_gradients_a_run_where_nothing_breaks(name, gradients, forwards):
    weight, bias, images, _ = linear_task(4, 5)
    labels = LinearSession(weight, bias).logits(images).argmax(axis=1)
    found, oracle = attack(name, LinearSession(weight, bias), images, labels, 4, eps=0.0)
    assert not found.broken.any()
    assert (oracle.gradients, oracle.forwards) == (5 * gradients, 5 * forwards)


def test_wrong_classes_are_ranked_by_the_clean_logits_and_ties_by_their_number():
    z = np.float32([[1, 5, 3, 3], [2, 2, 2, 2]])
    np.testing.assert_array_equal(wrong_classes(z, np.array([1, 2])), [[2, 3, 0], [0, 1, 3]])


# FAB

pixels = hnp.arrays(np.float32, (3, 1, 2, 3), elements=st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0]))
normals = hnp.arrays(np.float32, (3, 1, 2, 3), elements=st.floats(-5, 5, width=16) | st.just(0.0))
changes = hnp.arrays(np.float32, 3, elements=st.floats(-8, 8, width=16))


@given(pixels, normals, changes)
def test_the_move_to_a_hyperplane_is_the_shortest_in_the_box(x, w, change):
    move = move_to_hyperplane(x, w, change)
    assert move.dtype == np.float32
    assert (x + move).min() >= 0
    assert (x + move).max() <= 1
    for image, normal, moved, wanted in zip(x, w, move, change, strict=True):
        x64, w64, length = image.astype(float), normal.astype(float), np.abs(moved).max()
        way = np.sign(w64) * np.sign(wanted)
        room = np.where(way > 0, 1 - x64, x64)

        def reach(length, w64=w64, room=room):
            return (np.abs(w64) * np.minimum(length, room)).sum()

        assert np.sign(wanted) * (w64 * moved).sum() == pytest.approx(min(abs(wanted), reach(1)), abs=1e-5)
        assert reach(length - 1e-4) < abs(wanted) or length < 1e-4


def test_fab_costs_a_gradient_and_a_forward_a_step_where_nothing_breaks():
    weight, bias, images, _ = linear_task(4, 5)
    labels = LinearSession(weight, bias).logits(images).argmax(axis=1)
    _, oracle = attack("fab-t", LinearSession(weight, bias), images, labels, 4, eps=0.0)
    assert (oracle.gradients, oracle.forwards) == (5 * 300, 5 * (300 + 3 + 1))


def test_a_zero_gradient_stops_fab_where_it_is():
    x = np.full((2, 1, 2, 2), 0.3, np.float32)
    assert not move_to_hyperplane(x, np.zeros_like(x), np.float32([1, -1])).any()


# Square


def test_square_asks_exactly_its_queries_and_never_a_gradient():
    weight, bias, images, _ = linear_task(4, 5)
    labels = LinearSession(weight, bias).logits(images).argmax(axis=1)
    _, oracle = attack("square", LinearSession(weight, bias), images, labels, 4, eps=0.0, queries=150)
    assert (oracle.gradients, oracle.forwards) == (0, 5 * 150)


def test_squares_shrink_on_the_unscaled_schedule():
    sides = [side(number, 0.8, 32, 32) for number in (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001)]
    assert sides == [29, 29, 20, 20, 14, 10, 7, 5, 4, 3]
    assert side(4999, 0.8, 2, 2) == 1
    assert side(0, 0.8, 2, 32) == 2


def test_squares_lie_inside_the_image_at_every_place_alike():
    draws = Noise(0, "square").bits([7], 8000).reshape(4000, 2)
    masks = window(draws, 2, (4, 3))
    assert masks.shape == (4000, 1, 4, 3)
    assert (masks.sum(axis=(1, 2, 3)) == 4).all()
    top, left = masks.any(axis=3).argmax(axis=2), masks.any(axis=2).argmax(axis=2)
    counts = np.bincount((2 * top + left).ravel(), minlength=6)
    assert (abs(counts - 4000 / 6) < 5 * np.sqrt(4000 / 6)).all()


def test_stripes_are_one_sign_a_column_and_channel():
    images = np.full((40, 3, 5, 8), 0.5, np.float32)
    signs = stripes(points_of(images, np.zeros(40, int), 2), Noise(0, "square"))
    assert signs.shape == (40, 3, 1, 8)
    assert 0.4 < signs.mean() < 0.6


# AutoAttack


def cascade_of(classes, attacks=("aa",), n=40):
    weight, bias, images, labels = linear_task(classes, n)
    target = Target(LinearSession(weight, bias), ImageSet("linear", images, labels, np.arange(n)), classes, 64)
    return run_suite(target, planned(target, attacks), eps=EPS, seed=0, keep_all=True, progress=Silent())


NAMES_BY_CLASSES = {
    2: ["apgd-ce", "fab-t", "square", "aa"],
    3: ["apgd-ce", "apgd-dlr", "fab-t", "square", "aa"],
    4: ["apgd-ce", "apgd-t", "fab-t", "square", "aa"],
}


@pytest.fixture(autouse=True)
def _few_queries(monkeypatch):
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 100, "p": 0.8}))


@pytest.mark.parametrize("classes", NAMES_BY_CLASSES)
def test_autoattack_is_a_row_for_each_of_its_attacks_and_one_that_sums_them_up(classes):
    outcome = cascade_of(classes)
    *members, summary = outcome.attacks
    assert [row.name for row in outcome.attacks] == NAMES_BY_CLASSES[classes]
    assert [row.cascade for row in outcome.attacks] == [True] * len(members) + [False]
    correct = int(outcome.evidence.correct.sum())
    for row in members:
        assert row.attacked == correct
        correct -= row.broken
        assert row.accuracy == correct / 40
    assert summary.accuracy == outcome.evidence.robust.mean() == correct / 40
    assert (summary.attacked, summary.broken) == (members[0].attacked, members[0].attacked - correct)
    for cost in ("seconds", "forwards", "gradients"):
        assert getattr(summary, cost) == sum(getattr(row, cost) for row in members)


def test_each_attack_of_the_cascade_names_the_images_that_it_broke():
    outcome = cascade_of(4)
    counts = [int((outcome.evidence.broken_by == row).sum()) for row in range(5)]
    assert counts == [row.broken for row in outcome.attacks[:-1]] + [0]


def test_the_accuracy_of_autoattack_is_its_own_whatever_ran_before_it():
    alone, after = cascade_of(3), cascade_of(3, ("pgd", "aa"))
    figures = [[(row.attacked, row.broken) for row in outcome.attacks[-5:]] for outcome in (alone, after)]
    assert figures[0] == figures[1]
    assert (after.evidence.broken_by == 0).sum() == after.attacks[0].broken
    np.testing.assert_array_equal(alone.evidence.broken_by == STANDS, after.evidence.broken_by == STANDS)


def test_targets_are_as_many_as_the_model_has_wrong_classes_and_at_most_nine():
    settings = {classes: {a.name: a.defaults for a in stages("aa", classes)} for classes in (2, 3, 7, 10, 100)}
    assert [settings[classes]["fab-t"]["targets"] for classes in settings] == [1, 2, 6, 9, 9]
    assert [settings[classes]["apgd-t"]["targets"] for classes in (7, 10, 100)] == [6, 9, 9]


@pytest.mark.parametrize(("name", "classes"), [("apgd-dlr", 2), ("apgd-t", 3)])
def test_a_loss_that_the_classes_do_not_define_is_refused(name, classes):
    with pytest.raises(BadModel, match=f"{name} needs {classes + 1} classes"):
        cascade_of(classes, (name,))
