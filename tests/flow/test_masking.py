"""Each check before a figure is believed, on models planted with the fault that it is for, and on honest ones.

docs/verdict.md has the table that these tests hold.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.gradient import gradient_graph
from export.passes import to_bytes
from export.to_onnx import to_onnx
from pipeline.data import load_dataset
from pipeline.evaluate import TorchSession, placement
from runtime.attacks import ATTACKS
from runtime.bundle import InputShape
from runtime.errors import NonFinite
from runtime.images import ImageSet
from runtime.masking import CHECKS, check
from runtime.progress import Silent
from runtime.session_ort import OrtSession
from runtime.suite import run_suite
from runtime.units import Target

pytestmark = [pytest.mark.slow, pytest.mark.check]

EPS, N, CLASSES = 8 / 255, 128, 10
CPU = torch.device("cpu")
QUICK = {
    "apgd-ce": {"steps": 10},
    "apgd-t": {"steps": 5, "targets": 3},
    "fab-t": {"steps": 5, "targets": 1},
    "square": {"queries": 150},
}
"""Attacks short enough for a test; what the checks see is the same."""


def features():
    return [nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU(), nn.Flatten()]


def trained(images, labels, *, eps):
    """Return a small network, trained on single-step adversarial points within eps, or on clean ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(*features(), nn.Linear(16 * 7 * 7, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    optimizer, generator = torch.optim.Adam(network.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for batch in torch.cat([torch.randperm(len(images), generator=generator) for _ in range(3)]).split(64):
        x, y = images[batch], labels[batch]
        if eps:
            start = eps * (2 * torch.rand(x.shape, generator=generator) - 1).requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network((x + start).clamp(0, 1)), y), start)
            x = (x + (start + 1.25 * eps * gradient.sign()).clamp(-eps, eps)).clamp(0, 1).detach()
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


class Around(nn.Module):
    """A network with something before and after it."""

    def __init__(self, network, before=None, after=None):
        super().__init__()
        self.network, self.before, self.after = network, before or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        return self.after(self.network(self.before(x)))


class Rounding(nn.Module):
    def forward(self, x):
        return torch.round(16 * x) / 16


class Times(nn.Module):
    def forward(self, z):
        return 1000 * z


class Softmax(nn.Module):
    def forward(self, z):
        return z.softmax(dim=1)


class DropoutLeftOn(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.1, training=True)


class Steps(nn.Module):
    """An activation without a gradient: 17 levels."""

    def forward(self, x):
        return torch.round(8 * x.clamp(0, 2)) / 8


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        levels = 255 * x
        ctx.save_for_backward((levels - levels.round()).abs().amax(dim=(1, 2, 3)) < 1e-3)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (clean,) = ctx.saved_tensors
        return torch.where(clean[:, None, None, None], gradient, -gradient)


class Misleading(nn.Module):
    """Gradients are right on images as stored, and point the wrong way everywhere else."""

    def forward(self, x):
        return _Reverse.apply(x)


def with_steps(network):
    layers = [Steps() if isinstance(layer, nn.ReLU) else layer for layer in network]
    return nn.Sequential(*layers)


def exported(network):
    forward = to_onnx(network, InputShape(channels=1, height=28, width=28))
    return OrtSession(to_bytes(forward), to_bytes(gradient_graph(forward)), precision="fp32"), np.asarray


def in_torch(network):
    return TorchSession(network, sha256="0" * 64, device=CPU), placement(CPU)


HONEST = {
    "adversarially trained": (lambda robust, clean: robust, exported),
    "trained on clean images": (lambda robust, clean: clean, exported),
}
PLANTED = {
    "rounding layer": (
        lambda robust, clean: Around(robust, before=Rounding()), in_torch, {"zero-gradient", "far-from-chance"},
    ),
    "logits times 1000": (
        lambda robust, clean: Around(robust, after=Times()), exported, {"zero-gradient", "far-from-chance"},
    ),
    "softmax output": (lambda robust, clean: Around(robust, after=Softmax()), exported, {"softmax"}),
    "dropout left on": (lambda robust, clean: Around(robust, before=DropoutLeftOn()), in_torch, {"randomised"}),
    "activation without gradient": (
        lambda robust, clean: with_steps(robust), in_torch, {"zero-gradient", "far-from-chance", "square-alone"},
    ),
    "misleading gradient": (
        lambda robust, clean: Around(robust, before=Misleading()), in_torch,
        {"fgsm-over-pgd", "far-from-chance", "pgd-over-aa"},
    ),
}  # fmt: skip
"""Fault: the model that has it, how it is run, and checks that must find it."""


@pytest.fixture(scope="module")
def task():
    data = load_dataset("fashion-mini", None)
    x, y = torch.from_numpy(data.train.as_float(slice(0, 6000))), torch.from_numpy(data.train.labels[:6000]).long()
    images = ImageSet("test", data.test.images[:N], data.test.labels[:N].astype(np.int64), np.arange(N))
    return trained(x, y, eps=EPS), trained(x, y, eps=0), images


@pytest.fixture
def judged(task, monkeypatch):
    """Return a function from a model and how it is run to {check: state}."""
    for name, settings in QUICK.items():
        monkeypatch.setitem(ATTACKS, name, replace(ATTACKS[name], defaults={**ATTACKS[name].defaults, **settings}))

    def judge(make, open_session):
        *networks, images = task
        session, place = open_session(make(*networks).eval())
        with torch.random.fork_rng():
            torch.manual_seed(0)
            target, attacks = Target(session, images, CLASSES, N, place), ["fgsm", "pgd", "aa"]
            outcome = run_suite(target, attacks, eps=EPS, seed=0, keep_all=False, progress=Silent())
        return {result.check: result.state for result in check(outcome, classes=CLASSES, precision="fp32")}

    return judge


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_and_blocks_the_verdict(judged, fault):
    *model, expected = PLANTED[fault]
    states = judged(*model)
    print(f"{fault}: {states}")
    assert expected <= {name for name, state in states.items() if state == "found"}
    assert any(states[each.name] == "found" for each in CHECKS if each.blocking)


@pytest.mark.parametrize("kind", HONEST)
def test_every_check_runs_on_an_honest_model_and_stays_quiet(judged, kind):
    assert judged(*HONEST[kind]) == {each.name: "quiet" for each in CHECKS}


def test_every_check_finds_one_of_the_planted_faults():
    found = set().union(*(expected for *_, expected in PLANTED.values()))
    assert found == {each.name for each in CHECKS} - {"black-box-only"}


def test_values_that_are_not_finite_end_a_run_at_once(judged):
    class Logarithm(nn.Module):
        def forward(self, z):
            return torch.log(z)

    with pytest.raises(NonFinite, match="image 0"):
        judged(lambda robust, clean: Around(robust, after=Logarithm()), in_torch)
