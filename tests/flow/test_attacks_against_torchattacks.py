"""Our attacks against torchattacks', on the same points of small networks trained here, at the reference's settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data import load_dataset
from pipeline.evaluate import TorchSession, placement
from runtime.attacks import ATTACKS
from runtime.images import ImageSet
from runtime.progress import Silent
from runtime.suite import Campaign, Target, clean_pass

pytestmark = pytest.mark.slow

N = 200
MAY_DIFFER = 0.005
QUERIES = 300
CPU = torch.device("cpu")
EPS = {4: 0.15, 10: 0.1}
"""By number of classes."""
SEEDS = {"apgd-ce": range(3), "apgd-dlr": range(3)}
"""One random start alone moves untargeted APGD by one or two images, on either side; others run with seed 0."""


def trained(images, labels, classes, eps):
    """Return a small convolutional network, trained a little on single-step adversarial points."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU(), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(16 * 7 * 7, 32), nn.ReLU(), nn.Linear(32, classes))
    optimizer, generator = torch.optim.Adam(network.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for batch in torch.cat([torch.randperm(len(images), generator=generator) for _ in range(3)]).split(64):
        x, y = images[batch], labels[batch]
        start = eps * (2 * torch.rand(x.shape, generator=generator) - 1).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network((x + start).clamp(0, 1)), y), start)
        x = (x + (start + 1.25 * eps * gradient.sign()).clamp(-eps, eps)).clamp(0, 1).detach()
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module", params=[pytest.param(4, marks=pytest.mark.check), 10])
def task(request):
    """Return (network, images, classes, eps)."""
    data, classes = load_dataset("fashion-mini", None), request.param
    train, test = (np.flatnonzero(part.labels < classes) for part in (data.train, data.test))
    x, y = torch.from_numpy(data.train.as_float(train)), torch.from_numpy(data.train.labels[train]).long()
    network = trained(x, y, classes, EPS[classes])
    chosen = test[:N]
    labels = data.test.labels[chosen].astype(np.int64)
    return network, ImageSet("test", data.test.as_float(chosen), labels, np.arange(N)), classes, EPS[classes]


def their_attack(name, network, classes, eps, seed):
    torchattacks = pytest.importorskip("torchattacks")
    common = {"eps": eps, "seed": seed}
    make = {
        "apgd-ce": lambda: torchattacks.APGD(network, steps=100, loss="ce", **common),
        "apgd-dlr": lambda: torchattacks.APGD(network, steps=100, loss="dlr", **common),
        "apgd-t": lambda: torchattacks.APGDT(network, steps=100, n_classes=classes, **common),
        "fab-t": lambda: torchattacks.FAB(network, steps=100, multi_targeted=True, n_classes=classes, **common),
        "square": lambda: torchattacks.Square(network, n_queries=QUERIES, resc_schedule=False, **common),
    }
    return make[name]()


def their_robust(name, network, images, classes, eps, seed):
    x, y = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    with torch.random.fork_rng():
        other = their_attack(name, network, classes, eps, seed)(x, y).detach()
    with torch.no_grad():
        fooled = (network(other).argmax(dim=1) != y) & ((other - x).abs().amax(dim=(1, 2, 3)) <= eps + 1e-6)
    return ~fooled.numpy()


def our_robust(name, network, images, classes, eps, seed):
    attack = ATTACKS[name].fitted(classes)
    if name == "square":
        attack = replace(attack, defaults={**attack.defaults, "queries": QUERIES})
    target = Target(TorchSession(network, sha256="0" * 64, device=CPU), images, classes, N, placement(CPU))
    evidence = clean_pass(target, 0, Silent())
    Campaign(target, evidence, eps, seed, Silent()).attack(attack, 0)
    return evidence.robust


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"])
def test_our_robust_accuracy_is_at_most_one_image_in_two_hundred_above_theirs(task, name):
    ours, theirs = (
        np.logical_and.reduce([judge(name, *task, seed) for seed in SEEDS.get(name, [0])])
        for judge in (our_robust, their_robust)
    )
    print(f"{name}: ours {ours.sum()}, theirs {theirs.sum()}, only ours {(ours & ~theirs).sum()}")
    assert 0.1 < ours.mean() < 0.9
    assert ours.sum() <= theirs.sum() + MAY_DIFFER * N
