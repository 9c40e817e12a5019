"""What an attack says that it costs an image at most is no less than what it asks."""

from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import AGAIN, ATTACKS, CONTROLS, SMOOTHED
from runtime.attacks.losses import one_hot
from runtime.attacks.oracle import Oracle, Points
from runtime.attacks.passes import Passes
from runtime.session import GraphFacts, SessionCard
from tests.fakes import DIGEST, LinearSession, LyingGradients
from tests.tiny import EPS, linear_task

CLASSES, N = 4, 24


def shortened(attack, **most):
    settings = {name: min(value, most.get(name, value)) for name, value in attack.defaults.items()}
    return replace(attack, defaults=settings)


ALL = {
    **{name: shortened(attack, steps=12, queries=70, targets=3) for name, attack in ATTACKS.items()},
    **{f"control {attack.name}": attack for attack in (*CONTROLS, *SMOOTHED, *AGAIN)},
}


class Int8(LinearSession):
    """Judges every iterate: no hint of its gradient graph holds."""

    def card(self):
        return SessionCard(DIGEST, "int8", "fake", "fake", "fake", facts=GraphFacts(quantised=True))


class Flat(LinearSession):
    """Is so sure that cross-entropy has no slope in float32."""

    def __init__(self, weight, bias):
        super().__init__(1e4 * weight, 1e4 * bias)


class Counting:
    """Counts the questions about each image, in place of the headway of a unit."""

    def __init__(self):
        self.forwards, self.gradients = np.zeros(N, int), np.zeros(N, int)

    def asked(self, rows, *, gradient):
        (self.gradients if gradient else self.forwards)[rows] += 1


def counted(attack, kind, eps):
    weight, bias, images, labels = linear_task(CLASSES, N)
    index, count = np.arange(N), Counting()
    oracle = Oracle(kind(weight, bias), 8, headway=count)
    attack.run(oracle, Points(images, one_hot(labels, CLASSES), labels, index, index), eps, 0)
    assert (oracle.forwards, count.gradients.sum()) == (count.forwards.sum(), count.gradients.sum())
    assert oracle.gradients in range(count.gradients.sum(), 2 * count.gradients.sum() + 1)
    return Passes(count.forwards.max(), count.gradients.max())


@pytest.mark.parametrize("kind", [LinearSession, LyingGradients, Int8, Flat])
@pytest.mark.parametrize("eps", [0.0, EPS, 0.1])
@pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
def test_no_attack_asks_more_of_an_image_than_it_says(attack, eps, kind):
    asked, most = counted(attack, kind, eps), attack.passes
    assert asked.forwards <= most.forwards
    assert asked.gradients <= most.gradients


@pytest.mark.parametrize(
    "attack", [each for each in ALL.values() if each.name != "sign-hunter"], ids=lambda it: it.name
)
def test_what_nothing_breaks_costs_what_is_said_or_little_less(attack):
    """By the passes that tell how far it is. Of an image of 4 x 4 SignHunter has too few pieces."""
    asked, most = counted(attack, Int8, 0.0), attack.passes
    assert Passes(asked.forwards, asked.gradients).by_gradient == most.by_gradient
    assert 0.9 * most.leading <= asked.leading <= most.leading
