"""Our attacks against torchattacks', on the same points of small networks trained here, at the reference's settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data.sets import load_dataset
from pipeline.runs.evaluate import TorchSession, placement
from runtime.attacks import ATTACKS, stages
from runtime.attacks.losses import one_hot
from runtime.attacks.oracle import Oracle, Points, predictions

torchattacks = pytest.importorskip("torchattacks", reason="`make test` installs it, without its dependencies")
pytestmark = pytest.mark.slow

N = 200
MAY_DIFFER = 0.005
QUERIES = 300
CPU = torch.device("cpu")
EPS = {2: 0.2, 3: 0.2, 4: 0.15, 10: 0.1}
"""By number of classes."""
SEEDS = {"apgd-ce": range(5), "apgd-dlr": range(5), "square": range(5)}
"""One random start alone moves untargeted APGD by up to three images, and Square by five, on either side.

Others run with seed 0.
"""


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


@pytest.fixture(scope="module")
def task(request):
    """Return (network, images, labels, classes, eps) for so many classes."""
    return task_of(request.param)


@pytest.fixture(scope="module")
def task_of_ten():
    return task_of(10)


def task_of(classes):
    data = load_dataset("fashion-mini", None)
    train, test = (np.flatnonzero(part.labels < classes) for part in (data.train, data.test))
    x, y = torch.from_numpy(data.train.as_float(train)), torch.from_numpy(data.train.labels[train]).long()
    network = trained(x, y, classes, EPS[classes]).requires_grad_(False)
    chosen = test[:N]
    return network, data.test.as_float(chosen), data.test.labels[chosen].astype(np.int64), classes, EPS[classes]


def their_attack(name, network, classes, eps, seed):
    common, many = {"eps": eps, "seed": seed}, {"n_classes": classes, "steps": 100}
    make = {
        "apgd-ce": lambda: torchattacks.APGD(network, steps=100, loss="ce", **common),
        "apgd-dlr": lambda: torchattacks.APGD(network, steps=100, loss="dlr", **common),
        "apgd-t": lambda: torchattacks.APGDT(network, **many, **common),
        "fab-t": lambda: torchattacks.FAB(network, multi_targeted=True, **many, **common),
        "square": lambda: torchattacks.Square(network, n_queries=QUERIES, resc_schedule=False, **common),
        "aa": lambda: their_autoattack(network, classes, **common),
    }
    return make[name]()


def their_autoattack(network, classes, *, eps, seed):
    """Return their AutoAttack set to the reference's steps and schedule, without APGD-T where it has no loss."""
    whole = torchattacks.AutoAttack(network, eps=eps, n_classes=classes, seed=seed)
    for attack in whole._autoattack.attacks:
        attack.steps, attack.n_queries, attack.rescale_schedule = 100, QUERIES, False
    if classes < 4:
        del whole._autoattack.attacks[1]
    return whole


def their_robust(name, network, images, labels, classes, eps, seed):
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    with torch.random.fork_rng():
        other = their_attack(name, network, classes, eps, seed)(x, y).detach()
    with torch.no_grad():
        fooled = (network(other).argmax(dim=1) != y) & ((other - x).abs().amax(dim=(1, 2, 3)) <= eps + 1e-6)
    return ~fooled.numpy()


def our_robust(name, network, images, labels, classes, eps, seed):
    session, place = TorchSession(network, sha256="0" * 64, device=CPU), placement(CPU)
    index = np.flatnonzero(predictions(session.logits(place(images)).numpy()) == labels)
    standing = np.zeros(len(labels), bool)
    standing[index] = True
    for attack in stages(name, classes):
        shorter = {"queries": QUERIES} if attack.name == "square" else {}
        attack = replace(attack, defaults={**attack.defaults, **shorter})
        index = np.flatnonzero(standing)
        points = Points(
            place(images[index]), one_hot(place(labels[index]), classes), labels[index], index, np.arange(len(index))
        )
        standing[index] = ~attack.run(Oracle(session, N), points, eps, seed).broken
    return standing


def may_be_compared(name, classes):
    return name == "aa" or ATTACKS[name].least_classes <= classes


NAMES = ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "aa"]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        pytest.param(classes, name, marks=[pytest.mark.check] if classes == 3 else [])
        for classes in EPS
        for name in NAMES
        if may_be_compared(name, classes)
    ],
    indirect=["task"],
)
def test_our_robust_accuracy_is_at_most_one_image_in_two_hundred_above_theirs(task, name):
    ours, theirs = (
        np.logical_and.reduce([judge(name, *task, seed) for seed in SEEDS.get(name, [0])])
        for judge in (our_robust, their_robust)
    )
    print(f"{task[3]} classes, {name}: ours {ours.sum()}, theirs {theirs.sum()}, only ours {(ours & ~theirs).sum()}")
    assert 0.1 < ours.mean() < 0.9
    assert ours.sum() <= theirs.sum() + MAY_DIFFER * N


CONSTANT, STEPS = 1.0, 200
"""Of CW-L2: large enough that some images are broken in few steps."""


def test_cw_l2_breaks_what_theirs_does_as_near(task_of_ten):
    """On images without black or white, where theirs has no inverse of tanh and leaves the pixels as they are."""
    network, images, labels, classes, _ = task_of_ten
    images = (0.05 + 0.9 * images).astype(np.float32)
    session, place = TorchSession(network, sha256="0" * 64, device=CPU), placement(CPU)
    right = predictions(session.logits(place(images)).numpy()) == labels
    images, labels, index = images[right], labels[right], np.arange(right.sum())
    cw = ATTACKS["cw-l2"]
    attack = replace(cw, defaults={**cw.defaults, "constant": CONSTANT, "steps": STEPS})
    points = Points(place(images), one_hot(place(labels), classes), labels, index, index)
    found = attack.run(Oracle(session, N), points, 0.0, 0)
    theirs = torchattacks.CW(network, c=CONSTANT, kappa=0.01, steps=STEPS, lr=0.01)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    other = theirs(x, y).detach()
    broken = (network(other).argmax(dim=1) != y).numpy()
    near, nearer = (((p - images) ** 2).sum(axis=(1, 2, 3)) ** 0.5 for p in (other.numpy(), found.x))
    both = broken & found.broken
    print(
        f"CW-L2: ours {found.broken.sum()}, theirs {broken.sum()}, distances {near[both].mean()} {nearer[both].mean()}"
    )
    assert 0.1 < broken.mean() < 0.95
    assert (found.broken != broken).sum() <= MAY_DIFFER * N
    np.testing.assert_allclose(nearer[both], near[both], rtol=0.02, atol=0.005)
