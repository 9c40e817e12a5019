"""The evidence of every attack on ONNX Runtime is the same to the bit, whatever is attacked together and how."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from runtime.attacks import ATTACKS
from runtime.attacks.losses import one_hot
from runtime.attacks.oracle import Oracle, Points
from runtime.backends import ort
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import InputShape

EVIDENCE = ("x", "broken", "prediction", "margin", "linf")
EPS, N, SIDE = 0.02, 23, 8
LEAST = {"targets": 2, "steps": 12, "queries": 80}
QUICK = {
    name: replace(attack, defaults={key: min(value, LEAST.get(key, value)) for key, value in attack.defaults.items()})
    for name, attack in ATTACKS.items()
}
STRONGER = {"constant": 10.0, "lr": 0.05}
QUICK["cw-l2"] = replace(QUICK["cw-l2"], defaults={**QUICK["cw-l2"].defaults, **STRONGER})
every_attack = pytest.mark.parametrize(
    ("task", "name"),
    [(classes, name) for classes in (2, 3, 5) for name in QUICK if classes >= QUICK[name].least_classes],
    indirect=["task"],
)


@pytest.fixture(scope="module")
def task(request, monkeymodule):
    """Return (session, images, labels, classes); batches are cut into pieces of at most four, for three workers."""
    classes = request.param
    images = np.random.default_rng(0).random((N, 1, SIDE, SIDE), np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        layers = [nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(256, classes)).eval()
    with torch.no_grad():
        network[-1].bias -= network(torch.from_numpy(images)).mean(dim=0)
    forward = to_onnx(network, InputShape(channels=1, height=SIDE, width=SIDE))
    session = OrtSession(to_bytes(forward.model), to_bytes(gradient_graph(forward)), precision="fp32")
    return session, images, session.logits(images).argmax(axis=1), classes


@pytest.fixture(scope="module")
def monkeymodule():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort, "cores", lambda: 3)
        patch.setattr(ort, "PIECE", 4)
        yield patch


def found_by(name, task, order, batch):
    session, images, labels, classes = task
    label = one_hot(labels[order], classes)
    points = Points(images[order], label, labels[order], order, np.arange(len(order)))
    return QUICK[name].fitted(classes).run(Oracle(session, batch), points, EPS, 0)


@pytest.fixture(scope="module")
def whole(task):
    """Return the evidence of an attack on all images in one batch, found once."""
    known = {}

    def evidence(name):
        if name not in known:
            known[name] = found_by(name, task, np.arange(N), 64)
        return known[name]

    return evidence


@every_attack
@pytest.mark.parametrize("batch", [1, 7])
def test_nothing_depends_on_the_batch(name, batch, task, whole):
    found, expected = found_by(name, task, np.arange(N), batch), whole(name)
    for array in EVIDENCE:
        assert getattr(found, array).tobytes() == getattr(expected, array).tobytes(), array


@every_attack
def test_nothing_depends_on_the_order_or_on_what_is_attacked_together(name, task, whole):
    order = np.random.default_rng(1).permutation(N)[: N // 2]
    found, expected = found_by(name, task, order, 7), whole(name)
    for array in EVIDENCE:
        assert getattr(found, array).tobytes() == getattr(expected, array)[order].tobytes(), array


@every_attack
def test_a_second_run_gives_the_same(name, task, whole):
    found, expected = found_by(name, task, np.arange(N), 64), whole(name)
    for array in EVIDENCE:
        assert getattr(found, array).tobytes() == getattr(expected, array).tobytes(), array


@every_attack
def test_each_breaks_some_and_leaves_some(name, task, whole):
    broken = whole(name).broken
    assert broken.any()
    assert not broken.all() or not QUICK[name].bounded
