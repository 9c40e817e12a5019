"""The attacks on linear classifiers, whose answer is known exactly; and the oracle that they ask."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.attacks import ATTACKS, PGD
from runtime.attacks.losses import one_hot
from runtime.attacks.oracle import Oracle, Points, to_numpy
from runtime.errors import NonFinite
from runtime.images.image_set import ImageSet
from runtime.session import GraphFacts
from runtime.suite.units import Target
from tests.fakes import FlatAtTheEnds, FlatFor, LinearSession, LyingGradients
from tests.tiny import EPS, linear_task


def shortened(attack, **least):
    """Return the attack with settings cut to `least`."""
    return replace(attack, defaults={key: min(value, least.get(key, value)) for key, value in attack.defaults.items()})


QUICK = {name: shortened(attack, targets=2, steps=20, queries=200) for name, attack in ATTACKS.items()}
every_attack = pytest.mark.parametrize("attack", QUICK.values(), ids=QUICK)
BOUNDED = {name: attack for name, attack in QUICK.items() if attack.bounded}
every_bounded_attack = pytest.mark.parametrize("attack", BOUNDED.values(), ids=BOUNDED)
CLASSES = 4
FOR_TWO = {
    name: shortened(attack, targets=1, queries=1000)
    for name, attack in ATTACKS.items()
    if attack.least_classes == 2 and attack.bounded
}


def points_of(images, labels, classes, place=np.asarray):
    index = np.arange(len(labels))
    return Points(place(images), one_hot(place(labels), classes), labels, index, index)


def correct_task(classes, n=60, seed=0):
    weight, bias, images, labels = linear_task(classes, n, seed)
    right = (images.reshape(n, -1) @ weight.T + bias).argmax(axis=1) == labels
    return weight, bias, images[right], labels[right]


def attack_linear(attack, place, *, eps=EPS, classes=CLASSES, batch=7, seed=0):
    weight, bias, images, labels = correct_task(classes)
    oracle = Oracle(LinearSession(place(weight), place(bias)), batch)
    return attack.run(oracle, points_of(images, labels, classes, place), eps, seed)


@pytest.mark.parametrize("attack", FOR_TWO.values(), ids=FOR_TWO)
@pytest.mark.parametrize("eps", [0.005, 0.02, 0.05])
def test_two_classes_are_broken_exactly_where_the_closed_form_says_so(attack, eps):
    weight, bias, images, labels = correct_task(2, n=200)
    session = LinearSession(weight, bias)
    found = attack.run(Oracle(session, 64), points_of(images, labels, 2), eps, 0)
    expected = session.margins(images, labels) < eps
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(found.broken, expected)


def test_the_margin_attack_never_goes_beyond_the_closed_form_and_all_but_reaches_it():
    weight, bias, images, labels = correct_task(5, n=300)
    session = LinearSession(weight, bias)
    found = ATTACKS["cw"].run(Oracle(session, 64), points_of(images, labels, 5), 0.02, 0)
    expected = session.margins(images, labels) < 0.02
    assert not (found.broken & ~expected).any()
    assert found.broken.sum() >= 0.95 * expected.sum()


@every_bounded_attack
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), eps=st.floats(0, 1), spread=st.sampled_from([0.0, 0.2, 0.5]))
def test_no_point_leaves_the_ball_or_the_box(attack, seed, eps, spread):
    weight, bias, _, labels = linear_task(CLASSES, 10, seed)
    random = np.random.default_rng(seed)
    images = random.uniform(0.5 - spread, 0.5 + spread, (10, 1, 4, 4)).round(1).astype(np.float32)
    found = attack.run(Oracle(LinearSession(weight, bias), 4), points_of(images, labels, CLASSES), eps, seed)
    assert np.abs(found.x.astype(np.float64) - images.astype(np.float64)).max() <= eps + 1e-6
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    assert found.x.dtype == np.float32


@every_attack
def test_broken_means_that_the_artifact_itself_misclassifies_the_point(attack):
    weight, bias, images, labels = correct_task(CLASSES)
    session = LinearSession(weight, bias)
    found = attack.run(Oracle(session, 16), points_of(images, labels, CLASSES), EPS, 0)
    z = session.logits(found.x)
    np.testing.assert_array_equal(found.broken, z.argmax(axis=1) != labels)
    np.testing.assert_array_equal(found.prediction, z.argmax(axis=1))
    others = np.where(np.arange(CLASSES) == labels[:, None], -np.inf, z).max(axis=1)
    np.testing.assert_allclose(found.margin, others - z[np.arange(len(z)), labels], atol=1e-6)


@every_bounded_attack
def test_a_gradient_graph_that_cries_wolf_breaks_nothing(attack):
    weight, bias, images, labels = correct_task(CLASSES)
    found = attack.run(Oracle(LyingGradients(weight, bias), 16), points_of(images, labels, CLASSES), 1e-6, 0)
    expected = LinearSession(weight, bias).margins(images, labels) < 1e-6
    np.testing.assert_array_equal(found.broken, expected)


class RoundedOnItsOwn(LinearSession):
    """An artifact that computes otherwise than its gradient graph, which sees nothing broken at any point."""

    def __init__(self, **says):
        super().__init__(np.asarray([[1], [-1]], np.float32), np.zeros(2, np.float32))
        self.says = says

    def logits(self, x):
        z = super().logits(x)
        return np.where(x.reshape(-1, 1) > 0.41, z[:, ::-1], z)

    def card(self):
        return replace(super().card(), **self.says)


@pytest.mark.parametrize("attack", ["pgd", "cw"])
@pytest.mark.parametrize(
    ("says", "broken"),
    [
        ({"facts": GraphFacts(computes_in="float16")}, True),
        ({"facts": GraphFacts(quantised=True)}, True),
        ({"facts": GraphFacts(staircases=("Round",))}, True),
        ({"tf32": True}, True),
        ({"rounds_apart": True}, True),
        ({}, False),
    ],
)
def test_iterates_of_an_artifact_that_rounds_otherwise_than_its_gradient_graph_are_all_judged(attack, says, broken):
    images, labels = np.full((1, 1, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    found = ATTACKS[attack].run(Oracle(RoundedOnItsOwn(**says), 1), points_of(images, labels, 2), 0.1, 0)
    assert found.broken.all() == broken


def test_broken_points_leave_the_batch_at_once():
    weight, bias, images, labels = correct_task(2, n=200)
    oracle = Oracle(LinearSession(weight, bias), 64)
    found = PGD.run(oracle, points_of(images, labels, 2), 0.3, 0)
    assert found.broken.all()
    assert oracle.gradients < 6 * len(labels)


def test_a_point_at_which_the_margin_is_zero_but_the_class_is_right_still_stands():
    images, labels = np.full((1, 1, 1, 1), 0.5, np.float32), np.zeros(1, np.int64)
    session = LinearSession(np.zeros((2, 1), np.float32), np.zeros(2, np.float32))
    assert not PGD.run(Oracle(session, 1), points_of(images, labels, 2), 0.1, 0).broken.any()


class LeavesTheBall:
    """An attack gone wrong: it moves every point by more than eps."""

    def __call__(self, oracle, points, eps):
        from runtime.attacks.oracle import Found

        return Found(points, eps).judge(oracle, points, points.x + 2 * eps)


def test_a_point_outside_the_ball_is_a_defect_and_never_a_result():
    weight, bias, images, labels = correct_task(CLASSES)
    with pytest.raises(RuntimeError, match="left the ball"):
        LeavesTheBall()(Oracle(LinearSession(weight, bias), 8), points_of(images, labels, CLASSES), 0.01)


@every_attack
def test_the_standard_namespace_is_enough_and_gives_the_same_verdicts(attack):
    strict, plain = (attack_linear(attack, place, batch=64) for place in (array_api_strict.asarray, np.asarray))
    np.testing.assert_array_equal(strict.broken, plain.broken)
    np.testing.assert_allclose(strict.x, plain.x, atol=1e-6)


class SharedGradients(LinearSession):
    """Computes in numpy whatever it is given, so that two libraries see the same gradients to the bit."""

    def __init__(self, weight, bias, place):
        super().__init__(weight, bias)
        self.place = place

    def logits(self, x):
        return self.place(super().logits(to_numpy(x)))

    def loss_gradient(self, x, loss):
        host = type(loss)(*(to_numpy(array) for array in vars(loss).values()))
        return tuple(self.place(part) for part in super().loss_gradient(to_numpy(x), host))


@every_attack
def test_numpy_and_torch_are_equal_to_the_bit_given_the_same_gradients(attack):
    torch = pytest.importorskip("torch")
    weight, bias, images, labels = correct_task(CLASSES)
    first, second = (
        attack.run(Oracle(SharedGradients(weight, bias, place), 8), points_of(images, labels, CLASSES, place), EPS, 0)
        for place in (np.asarray, torch.from_numpy)
    )
    for name in EVIDENCE:
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


EVIDENCE = ("x", "broken", "prediction", "margin", "linf")


@every_attack
@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_depends_on_the_batch(attack, batch):
    found, whole = (attack_linear(attack, np.asarray, batch=size) for size in (batch, 1000))
    for name in EVIDENCE:
        assert getattr(found, name).tobytes() == getattr(whole, name).tobytes(), name


@every_attack
def test_nothing_depends_on_the_order_of_the_images_or_on_which_are_attacked_with_them(attack):
    weight, bias, images, labels = correct_task(CLASSES)
    oracle, points = Oracle(LinearSession(weight, bias), 8), points_of(images, labels, CLASSES)
    order = np.random.default_rng(1).permutation(len(labels))[: len(labels) // 2]
    some = Points(images[order], points.one_hot[order], labels[order], order, np.arange(len(order)))
    expected = attack.run(oracle, points, EPS, 0)
    found = attack.run(oracle, some, EPS, 0)
    for name in EVIDENCE:
        assert getattr(found, name).tobytes() == getattr(expected, name)[order].tobytes(), name


def test_an_oracle_never_asks_for_more_than_its_batch_and_packs_it_full():
    weight, bias, images, labels = correct_task(CLASSES)
    session = LinearSession(weight, bias)
    oracle = Oracle(session, 16)
    oracle.logits(points_of(images, labels, CLASSES), images)
    assert session.calls == [16] * (len(labels) // 16) + [len(labels) % 16]
    assert oracle.forwards == len(labels)


class Poisoned(LinearSession):
    def loss_gradient(self, x, loss):
        z, value, gradient = super().loss_gradient(x, loss)
        gradient[abs(x[:, 0, 0, 0] - 0.125) < 1e-6] = np.nan
        return z, value, gradient


@pytest.mark.parametrize("attack", [attack for attack in QUICK.values() if attack.uses_gradient])
def test_a_gradient_that_is_not_finite_names_its_image(attack):
    weight, bias, images, labels = correct_task(CLASSES)
    images[5] = 0.125
    labels[5] = LinearSession(weight, bias).logits(images[5:6]).argmax()
    with pytest.raises(NonFinite, match="the gradient of image 5"):
        attack.run(Oracle(Poisoned(weight, bias), 4), points_of(images, labels, CLASSES), 0.0, 0)


@pytest.mark.parametrize("attack", [attack for attack in QUICK.values() if attack.uses_gradient], ids=lambda a: a.name)
@pytest.mark.parametrize("place", [np.asarray, array_api_strict.asarray])
def test_an_oracle_remembers_which_standing_images_have_no_gradient(attack, place):
    weight, bias, images, labels = correct_task(CLASSES)
    images[[5, 8], 0, 0, 0] = 0.125
    labels[[5, 8]] = LinearSession(weight, bias).logits(images[[5, 8]]).argmax(axis=1)
    labels[8] = (labels[8] + 1) % CLASSES
    oracle = Oracle(FlatFor(place(weight), place(bias)), 7)
    attack.run(oracle, points_of(images, labels, CLASSES, place), 1e-4, 0)
    assert oracle.zero_gradient == {5}


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce"])
@pytest.mark.parametrize("times", [1.0, 30.0, 1000.0])
def test_large_logits_hide_nothing_from_cross_entropy(name, times):
    random = np.random.default_rng(3)
    images = ImageSet(
        "some", random.uniform(0.3, 0.7, (60, 1, 4, 4)).astype(np.float32), np.zeros(60, int), np.arange(60)
    )
    weight = random.normal(size=(3, 16)).astype(np.float32)
    plain = LinearSession(weight, np.float32([2.0, 0, 0]))
    session = LinearSession(np.float32(times * weight), np.float32([2.0 * times, 0, 0]))
    right = np.flatnonzero(plain.margins(images.as_float(slice(0, 60)), images.labels) > 0)
    oracle = Oracle(session, 64)
    found = ATTACKS[name].run(oracle, Target(session, images, 3, 64).points(right), 0.21, 0)
    least = plain.margins(images.as_float(right), images.labels[right])
    assert 15 < (least < 0.21).sum() < len(right) - 15
    assert (found.broken != (least < 0.21)).sum() <= 3  # the nearest class by logit is not always that by distance
    assert not oracle.zero_gradient


@pytest.mark.parametrize("name", ["fgsm", "pgd", "cw", "apgd-ce"])
def test_pixels_at_the_ends_of_the_box_follow_the_slope_into_it(name):
    weight, bias, images, labels = correct_task(CLASSES)
    images = np.where(images < 0.5, 0, 1).astype(np.float32)
    found = [
        QUICK[name].run(Oracle(kind(weight, bias), 7), points_of(images, labels, CLASSES), 4 * EPS, 0)
        for kind in (LinearSession, FlatAtTheEnds)
    ]
    assert found[0].margin.tolist() == found[1].margin.tolist()
    assert found[0].broken.any()


def test_pgd_20_takes_twice_the_steps_of_pgd():
    weight, bias, images, labels = correct_task(CLASSES)
    oracles = [Oracle(LinearSession(weight, bias), 64) for _ in range(2)]
    for name, oracle in zip(("pgd", "pgd-20"), oracles, strict=True):
        ATTACKS[name].run(oracle, points_of(images, labels, CLASSES), 1e-6, 0)  # nothing is broken, nothing ends early
    assert [oracle.gradients for oracle in oracles] == [10 * len(labels), 20 * len(labels)]
