"""MI-FGSM compared with its formula, written a second time. The tests of all attacks find it in the table."""

import numpy as np

from runtime.attacks import ATTACKS
from runtime.attacks.oracle import Oracle
from tests.fakes import LinearSession
from tests.runtime.attacks.test_attacks import correct_task, points_of

EPS, CLASSES = 0.01, 4


def test_it_takes_the_published_steps():
    weight, bias, images, labels = correct_task(CLASSES)
    session = LinearSession(weight, bias)
    attack = ATTACKS["mi-fgsm"]
    found = attack.run(Oracle(session, 16), points_of(images, labels, CLASSES), EPS, 0)
    x, velocity = images.astype(np.float64), 0.0
    for _ in range(attack.defaults["steps"]):
        z = x.reshape(len(x), -1) @ weight.T + bias
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        gradient = ((p - np.eye(CLASSES)[labels]) @ weight).reshape(x.shape)
        velocity = attack.defaults["decay"] * velocity + gradient / np.abs(gradient).sum(axis=(1, 2, 3), keepdims=True)
        x = (x + EPS / attack.defaults["steps"] * np.sign(velocity)).clip(images - EPS, images + EPS).clip(0, 1)
    standing = ~found.broken
    assert 0 < standing.sum() < len(standing)
    np.testing.assert_allclose(found.x[standing], x[standing], atol=1e-6)
