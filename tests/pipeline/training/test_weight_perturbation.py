"""Adversarial weight perturbation: against a transcription of its published algorithm, in float64."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.methods import METHODS
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.training.trainer import Trainer
from pipeline.training.weight_perturbation import WeightPerturbation
from runtime.errors import BadRecipe, MissingEnvironment
from tests.pipeline.runs.small_runs import assert_equal_bits, small
from tests.pipeline.training.test_parts import batch, steps, without_room

__all__ = ["batch"]
GAMMA = 0.01


def transcribed(student, images, labels, gamma):
    """Return a copy with perturbed weights: a proxy climbs the loss by one SGD step, whose length is then set."""
    proxy, perturbed = copy.deepcopy(student), copy.deepcopy(student)
    climb = torch.optim.SGD(proxy.parameters(), lr=0.01)
    (-functional.cross_entropy(proxy(images), labels)).backward()
    climb.step()
    there = dict(proxy.named_parameters())
    for name, weight in perturbed.named_parameters():
        if weight.dim() > 1:
            move = there[name].detach() - weight.detach()
            weight.data += gamma * weight.norm().item() / move.norm().item() * move
    return perturbed


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_the_perturbed_weights_and_the_gradient_there_are_those_of_the_published_algorithm(batch, arch):
    torch.manual_seed(0)
    student = build_network(arch, channels=1, classes=4, width=0.25).double().train()
    images, labels = batch[0].double(), batch[1]
    before, expected = copy.deepcopy(student), transcribed(student, images, labels, GAMMA)
    loss = functional.cross_entropy(expected(images), labels)
    gradients = torch.autograd.grad(loss, list(expected.parameters()))

    with WeightPerturbation(student, GAMMA).of(lambda: functional.cross_entropy(student(images), labels)):
        for own, its in zip(student.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(own, its, rtol=1e-12, atol=1e-14)
        functional.cross_entropy(student(images), labels).backward()
    for weight, gradient in zip(student.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-9, atol=1e-13)
    for (name, own), was in zip(student.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(own, was), name
    for (name, own), its in zip(student.named_buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(own, its, msg=name)  # of one pass, through the perturbed weights


def test_weights_move_up_the_loss_by_their_share_of_their_own_length_and_biases_stay():
    torch.manual_seed(0)
    network = nn.Linear(6, 3)
    images, labels = torch.rand(5, 6), torch.arange(5) % 3
    before = copy.deepcopy(network)

    def loss():
        return functional.cross_entropy(network(images), labels)

    flat = loss().item()
    with WeightPerturbation(network, 0.1).of(loss):
        moved = (network.weight - before.weight).norm()
        assert moved.item() == pytest.approx(0.1 * before.weight.norm().item(), rel=1e-5)
        assert torch.equal(network.bias, before.bias)
        assert loss().item() > flat


def test_weights_without_a_gradient_do_not_move():
    network = nn.Linear(6, 3)
    before = network.weight.detach().clone()
    with WeightPerturbation(network, 0.1).of(lambda: 0.0 * network(torch.zeros(2, 6)).sum()):
        assert torch.equal(network.weight, before)


def test_frozen_weights_do_not_move_and_of_nothing_but_biases_none_can():
    network = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    network[0].requires_grad_(False)
    before = copy.deepcopy(network)
    with WeightPerturbation(network, 0.1).of(lambda: network(torch.rand(2, 6)).square().sum()):
        assert torch.equal(network[0].weight, before[0].weight)
        assert not torch.equal(network[1].weight, before[1].weight)
    network[1].weight.requires_grad_(False)
    with pytest.raises(BadRecipe, match=r"train\.awp"):
        WeightPerturbation(network, 0.1)


def pair(directory, method, *overrides):
    torch.manual_seed(0)
    student, teacher = (build_network("resnet18", channels=1, classes=4, width=0.0625) for _ in range(2))
    recipe = small(directory, f"method.name={method}", "search.steps=0", *overrides)
    return student, frozen(teacher) if METHODS[method].needs_teacher else None, recipe


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_every_method_takes_the_gradient_of_its_loss_at_the_perturbed_weights(tmp_path, batch, method):
    """The same trainer without `awp` gives the loss function, which then sees weights that are perturbed by hand."""
    student, teacher, recipe = pair(tmp_path, method, f"train.awp={GAMMA}")
    run = Trainer(recipe, student, teacher, classes=4, precision="fp32")
    noisy = (*batch, 0.01 * torch.randn_like(batch[0]))
    loss = run.differentiate(noisy, 0.5)

    plain, teacher, recipe = pair(tmp_path, method)
    other, seen = Trainer(recipe, plain, teacher, classes=4, precision="fp32"), []
    original = other._loss
    other._loss = lambda *inputs: seen.append(partial(original, *inputs)) or original(*inputs)
    other.differentiate(noisy, 0.5)
    (loss_of,) = seen
    with WeightPerturbation(plain, GAMMA).of(loss_of):
        there = loss_of()
        gradients = torch.autograd.grad(there, list(plain.parameters()))
    assert loss.item() == pytest.approx(there.item(), rel=1e-5)
    for weight, gradient in zip(run.student.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("most", "parts"), [(10, 2), (5, 4)])
def test_a_batch_that_does_not_fit_with_perturbed_weights_leaves_nothing_of_them(
    tmp_path, batch, monkeypatch, most, parts
):
    def run(*overrides):
        student, teacher, recipe = pair(tmp_path, "trades", f"train.awp={GAMMA}", *overrides)
        return Trainer(recipe, student, teacher, classes=4, precision="fp32")

    asked = run(f"train.micro_batches={parts}")
    expected = steps(asked, batch, 2)
    without_room(monkeypatch, most)
    halved = run()
    assert steps(halved, batch, 2) == expected
    assert_equal_bits(halved.student.state_dict(), asked.student.state_dict())


def test_an_error_within_restores_the_weights():
    network = nn.Linear(6, 3)
    before = network.weight.detach().clone()
    with (
        pytest.raises(MissingEnvironment),
        WeightPerturbation(network, 0.1).of(lambda: network(torch.rand(2, 6)).sum()),
    ):
        raise MissingEnvironment("no room", hint="")
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("value", ["0", "-0.01", "1", "true", "nan"])
def test_a_length_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(BadRecipe, match=r"train\.awp"):
        small(tmp_path, f"train.awp={value}")
