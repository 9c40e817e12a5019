"""What a run asks beside its attacks, on linear models whose slopes, boundaries and robust images are known."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import CONTROLS
from runtime.attacks.oracle import Oracle
from runtime.images.image_set import ImageSet
from runtime.session import GraphFacts
from runtime.suite.gradient_tests import concordance, cross, hold, others, steady
from runtime.suite.run import run_suite
from runtime.suite.scrutiny import doubtful, most_tolerated, most_unrelated
from runtime.suite.units import Target, measure
from runtime.terminal.progress import Silent
from tests.fakes import LinearSession, planned

EPS, N, CLASSES = 0.06, 64, 3


class Told(LinearSession):
    """Tells the slopes of other weights than those it answers by."""

    def __init__(self, weight, bias, told):
        super().__init__(weight, bias)
        self.told = LinearSession(told, bias)

    def loss_gradient(self, x, loss):
        _, value, gradient = self.told.loss_gradient(x, loss)
        return self._logits(x), value, gradient


class Stepped(LinearSession):
    """Answers in whole numbers, by the slopes that it would have without."""

    def _logits(self, x):
        return np.round(super()._logits(x))


class Staircase(Told):
    """Answers in steps, by the slopes that it is told; says so of itself."""

    def _logits(self, x):
        return np.round(4 * super()._logits(x)) / 4

    def card(self):
        return replace(super().card(), facts=GraphFacts(staircases=("Round",)))


class Behind(Staircase):
    """Chooses a class in one step, beside a faint linear map whose slopes are all that it tells."""

    def _logits(self, x):
        chosen = LinearSession._logits(self, x).argmax(axis=1)
        return 3 * np.eye(CLASSES, dtype=np.float32)[chosen] + self.told._logits(x)


class WithoutSlopes(Staircase):
    """The same, and has no gradient of its own."""

    def card(self):
        return replace(super().card(), differentiable=False)


@pytest.fixture(scope="module")
def task():
    random = np.random.default_rng(1)
    x = random.uniform(0.3, 0.7, (N, 1, 8, 8)).astype(np.float32)
    weight = random.normal(size=(CLASSES, 64)).astype(np.float32)
    labels = (x.reshape(N, -1) @ weight.T).argmax(axis=1)
    return weight, np.zeros(CLASSES, np.float32), ImageSet("some", x, labels, np.arange(N))


def target(task, kind=LinearSession, *more):
    weight, bias, images = task
    return Target(kind(weight, bias, *more), images, CLASSES, 16)


def suite(aim, **options):
    settings = {"eps": EPS, "seed": 0, "keep_all": False, "progress": Silent(), **options}
    return run_suite(aim, planned(aim, ["fgsm", "pgd"]), **settings)


def test_the_slopes_of_a_linear_model_hold_turn_nowhere_and_its_margin_jumps_nowhere(task):
    outcome = suite(target(task), eps=0.01)
    test, stood = outcome.gradient_test, int(outcome.evidence.robust.sum())
    assert (test.n, test.apart_near, test.apart_far, test.unsteady, test.jumps) == (stood, 0, 0, 0, 0)
    assert stood < N
    assert test.lines > stood / 2


@pytest.mark.parametrize(
    ("told", "least"), [(lambda weight: weight, 1.0), (lambda weight: -weight, -1.0), (lambda weight: 0 * weight, 0.0)]
)
def test_concordance_is_one_for_the_true_slope_minus_one_reversed_and_zero_for_none(task, told, least):
    aim = target(task, Told, told(task[0]))
    evidence = suite(target(task)).evidence
    job = {"eps": EPS, "seed": 0, "evidence": evidence, "scales": (1 / 8, 1 / 2)}
    held = hold(Oracle(aim.session, 16), aim, aim.points(np.arange(N)), **job)
    for values in held.values():
        np.testing.assert_allclose(values, least, atol=0.02)


def test_concordance_of_a_slope_of_the_wrong_length_falls_with_it():
    moves = np.random.default_rng(0).normal(size=(8, 5))
    np.testing.assert_allclose(concordance(2 * moves, moves), 0.8)
    np.testing.assert_allclose(concordance(moves, np.zeros((8, 5))), 0.0)


def test_another_models_slopes_are_found_and_make_the_test_doubtful(task):
    other = np.random.default_rng(9).normal(size=task[0].shape).astype(np.float32)
    test = suite(target(task, Told, other)).gradient_test
    assert min(test.apart_near, test.apart_far) > most_tolerated(N)
    assert (test.unsteady, doubtful(test)) == (0, True)


def test_a_surrogate_has_something_to_do_with_the_artifact_and_a_decoy_nothing(task):
    other = np.random.default_rng(9).normal(size=task[0].shape).astype(np.float32)
    for eps in (EPS / 100, EPS / 20):  # at which most survive Square too
        honest, decoy = (suite(target(task, Staircase, told), eps=eps).gradient_test for told in (task[0], other))
        assert honest.unrelated <= N / 10
        assert decoy.unrelated > most_unrelated(decoy.n)


def test_of_a_staircase_a_class_that_is_chosen_in_one_step_beside_its_slopes_is_a_jump_and_a_level_is_none(task):
    faint = np.random.default_rng(9).normal(size=task[0].shape).astype(np.float32) / 10
    honest, hidden = (
        suite(target(task, kind, told), eps=EPS / 20).gradient_test
        for kind, told in ((Staircase, task[0]), (Behind, faint))
    )
    assert honest.jumps <= honest.lines / 10
    assert hidden.unrelated <= most_unrelated(hidden.n)  # its slopes are right, but they do not choose
    assert hidden.jumps > most_unrelated(hidden.lines)


def test_where_only_a_parent_lends_its_gradient_that_is_held_to_the_artifact(task):
    weight, bias, _ = task
    other = np.random.default_rng(9).normal(size=weight.shape).astype(np.float32)
    for lent, lies in ((weight, False), (other, True)):
        aim = replace(target(task, WithoutSlopes, weight), lender=LinearSession(lent, bias))
        test = suite(aim, eps=EPS / 100).gradient_test
        assert (test.unrelated > most_unrelated(test.n)) is lies


def test_a_step_where_the_class_changes_is_a_jump(task):
    test = suite(target(task, Stepped), eps=0.005).gradient_test
    assert test.jumps > most_tolerated(test.lines)


def test_what_a_test_says_of_an_image_depends_on_no_other(task):
    aim = target(task)
    evidence = suite(aim).evidence
    jobs = [
        lambda *a: hold(*a, eps=EPS, seed=0, evidence=evidence, scales=(1 / 8, 1 / 2)),
        lambda *a: steady(*a, eps=EPS, seed=0),
        lambda *a: cross(*a, seed=0),
    ]
    for job in jobs:
        whole, part = (measure(aim, index, job).arrays for index in (np.arange(N), np.array([5, 17, 40])))
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name][[5, 17, 40]])


def test_the_other_end_of_a_line_has_another_label(task):
    aim = target(task)
    ends = others(aim, aim.points(np.arange(N)), seed=0)
    assert (aim.images.labels[ends] != aim.images.labels).all()
    assert len(np.unique(ends)) > N / 3


def test_the_blind_control_finds_what_a_gradient_of_nothing_leaves(task):
    """Of the images within reach by the closed form, SignHunter alone finds more than half."""
    weight, bias, images = task
    honest, blind = target(task), target(task, Told, 0 * weight)
    within = (LinearSession(weight, bias).margins(images.images, images.labels) < EPS).sum()
    assert within > 20
    outcome = suite(blind, searched=np.arange(N))
    found = outcome.blind_control
    assert outcome.evidence.robust.sum() == found.n > N - 5
    assert within >= found.broken >= found.alone > within / 2
    assert found.by["sign-hunter"] > 0
    assert {"sign-hunter", "rays", "square"} <= set(found.by)
    quiet = suite(honest, searched=np.arange(N)).blind_control
    assert (quiet.n, quiet.alone) == (N - within, 0)


def test_near_the_limit_smoothed_gradients_are_tried_too(task):
    found = suite(target(task, Told, 0 * task[0]), searched=np.arange(N)).blind_control
    assert {"smoothed-1", "smoothed-2"} <= set(found.by)
    assert not {"smoothed-1", "smoothed-2"} & set(suite(target(task), searched=np.arange(N)).blind_control.by)


def test_without_a_gate_no_blind_control_runs(task):
    assert suite(target(task)).blind_control is None


def test_a_search_without_gradients_never_asks_for_one_and_costs_what_it_may(task):
    aim = target(task)
    for attack in CONTROLS:
        oracle = Oracle(aim.session, 16)
        found = attack.run(oracle, aim.points(np.arange(N)), EPS, 0)
        assert oracle.gradients == 0
        most = attack.defaults["queries"] + attack.defaults.get("halvings", -1) + 1
        assert oracle.forwards <= most * N
        assert (aim.session.margins(aim.images.images, aim.images.labels)[found.broken] < EPS + 1e-6).all()


def test_squares_own_finds_are_put_to_gradients_from_another_start(task):
    weight = task[0]
    aim = target(task, Told, 0 * weight)
    plan = planned(aim, ["pgd", "square"])
    found = run_suite(aim, plan, eps=EPS, seed=0, keep_all=False, progress=Silent()).square_alone
    assert found.n > N - 5
    assert found.broken == found.by["square"] >= found.alone > 10
