"""Masks: networks whose gradient leads nowhere or astray. The clean ones survive nothing in truth."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.flow.honest_nets import Residual
from tests.flow.plants import CLASSES, EPS, Around, Misleading, Rounding, with_steps

PIXELS = 28 * 28


def fixed(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def faint_lines(seed=1):
    return torch.randn(CLASSES, PIXELS, generator=torch.Generator().manual_seed(seed)) / PIXELS**0.5


# Lies about the gradient: the answer is untouched.
class _Lie(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, lie):
        ctx.lie, ctx.x = lie, x.detach()
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.lie(ctx.x, gradient), None


class Lie(nn.Module):
    """The identity; `lie` turns (x, its gradient) into the gradient that is told."""

    def __init__(self, lie):
        super().__init__()
        self.lie = lie

    def forward(self, x):
        return _Lie.apply(x, self.lie)


def shuffled(x, gradient):
    order = torch.randperm(gradient[0].numel(), generator=torch.Generator().manual_seed(0))
    return gradient.flatten(1)[:, order].view_as(gradient)


def wrong_signs(x, gradient):
    return torch.where(fixed(gradient.shape[1:]) < 1 / 3, -gradient, gradient)


def distance(x, bank):
    """Return how far each image is from the nearest of the bank, in L-infinity."""
    return torch.cdist(x.flatten(1), bank.flatten(1), p=float("inf")).amin(1)


class TurnedInBall:
    """Turns the gradient strictly inside the ball of a known image: right on it, and right outside."""

    def __init__(self, bank):
        self.bank = bank

    def __call__(self, x, gradient):
        away = distance(x, self.bank)
        inside = (away > 1e-4) & (away < 1.02 * EPS)
        return torch.where(inside[:, None, None, None], -gradient, gradient)


class _WrongReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, inverted):
        ctx.save_for_backward(x)
        ctx.inverted = inverted
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x <= 0) if ctx.inverted else gradient, None


class WrongReLU(nn.Module):
    """A rule of differentiation that is wrong: 1 everywhere, or 1 where it is 0."""

    def __init__(self, *, inverted):
        super().__init__()
        self.inverted = inverted

    def forward(self, x):
        return _WrongReLU.apply(x, self.inverted)


class OtherGradient(nn.Module):
    """The answers of one network with the slopes of another; the gradient graph's logits are the artifact's."""

    def __init__(self, mine, its):
        super().__init__()
        self.mine, self.its = mine, its

    def forward(self, x):
        its = self.its(x)
        return self.mine(x).detach() + its - its.detach()


# Masks in the answer itself.
class FloorSteps(nn.Module):
    def forward(self, x):
        return torch.floor(8 * x.clamp(0, 2)) / 8


class SignSteps(nn.Module):
    def forward(self, x):
        return sum((torch.sign(x - k / 8) + 1) / 2 for k in range(1, 17)) / 8


class WhereSteps(nn.Module):
    def forward(self, x):
        return 0 * x + sum(torch.where(x >= k / 8, 1.0, 0.0) for k in range(1, 17)) / 8


class LargeNumberSteps(nn.Module):
    """Rounds without a rounding: float32 has no fractions beyond 2**23. Its gradient goes straight through."""

    def forward(self, x):
        return ((8 * x.clamp(0, 2) + 1.5 * 2**23) - 1.5 * 2**23) / 8


class Thermometer(nn.Module):
    """The image as 16 comparisons, added up."""

    def forward(self, x):
        return 0 * x + sum((x > (k - 0.5) / 16).float() for k in range(1, 17)) / 16


class Short(nn.Module):
    """A network of staircases with a faint shortcut round it, so that no gradient is zero."""

    def __init__(self, network, faint=0.05):
        super().__init__()
        self.network, self.faint = network, faint
        self.register_buffer("lines", faint_lines(2))

    def forward(self, x):
        return self.network(x) + self.faint * x.flatten(1) @ self.lines.T


class Shattered(nn.Module):
    """An image with a fine wave on it."""

    def forward(self, x):
        return x + 0.004 * torch.sin(2000.0 * x)


class Ripple(nn.Module):
    """Logits that ripple along themselves."""

    def __init__(self, amplitude=0.3, frequency=60.0):
        super().__init__()
        self.amplitude, self.frequency = amplitude, frequency

    def forward(self, z):
        return z + self.amplitude * torch.sin(self.frequency * z)


class InputRipple(nn.Module):
    """A network whose logits ripple along random lines of the image."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("lines", faint_lines())

    def forward(self, x):
        return self.network(x) + 0.3 * torch.sin(400.0 * x.flatten(1) @ self.lines.T)


class Decoy(nn.Module):
    """A hard answer beside a faint random linear map; `bank`: one class for all that is far from a known image."""

    def __init__(self, network, bank=None):
        super().__init__()
        self.network, self.bank = network, bank
        self.register_buffer("lines", faint_lines())

    def forward(self, x):
        answer = self.answer(x)
        if self.bank is not None:
            far = distance(x, self.bank) > 1.5 * EPS
            answer = torch.where(far[:, None], F.one_hot(torch.tensor(0), CLASSES).float(), answer)
        return 3 * answer + (x - 0.5).flatten(1) @ self.lines.T

    def answer(self, x):
        return F.one_hot(self.network(x).argmax(1), CLASSES).float()


class SteepDecoy(Decoy):
    """A decoy whose answer is not hard but very steep."""

    def answer(self, x):
        return (300 * self.network(x)).softmax(1)


def with_activation(network, make):
    return nn.Sequential(*(make() if isinstance(layer, nn.ReLU) else layer for layer in network))


def dropped(network, what):
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, Residual):
            layer.dropped = what
    return network


def clean(nets):
    return nets("relu", robust=False)


MASKS = {
    "input rounding": lambda nets, bank: Around(nets("relu"), before=Rounding()),
    "thermometer": lambda nets, bank: Around(nets("relu"), before=Thermometer()),
    "round staircase": lambda nets, bank: with_steps(nets("relu")),
    "floor staircase": lambda nets, bank: with_activation(nets("relu"), FloorSteps),
    "sign staircase": lambda nets, bank: with_activation(nets("relu"), SignSteps),
    "where staircase": lambda nets, bank: with_activation(nets("relu"), WhereSteps),
    "large number staircase": lambda nets, bank: with_activation(nets("relu"), LargeNumberSteps),
    "large number staircase, clean": lambda nets, bank: with_activation(clean(nets), LargeNumberSteps),
    "staircase and shortcut": lambda nets, bank: Short(with_steps(nets("relu"))),
    "staircase and shortcut, clean": lambda nets, bank: Short(with_steps(clean(nets))),
    "misleading off the lattice": lambda nets, bank: Around(nets("relu"), before=Misleading()),
    "turned in the ball": lambda nets, bank: Around(nets("relu"), before=Lie(TurnedInBall(bank))),
    "turned in the ball, clean": lambda nets, bank: Around(clean(nets), before=Lie(TurnedInBall(bank))),
    "dropped branch": lambda nets, bank: dropped(nets("resnet"), "body"),
    "dropped branch, clean": lambda nets, bank: dropped(nets("resnet", robust=False), "body"),
    "another network's gradient": lambda nets, bank: OtherGradient(nets("relu"), clean(nets)),
    "ReLU' is 1": lambda nets, bank: with_activation(nets("relu"), lambda: WrongReLU(inverted=False)),
    "ReLU' inverted": lambda nets, bank: with_activation(nets("relu"), lambda: WrongReLU(inverted=True)),
    "shuffled gradient": lambda nets, bank: Around(nets("relu"), before=Lie(shuffled)),
    "a third of the signs wrong": lambda nets, bank: Around(nets("relu"), before=Lie(wrong_signs)),
    "shattered input": lambda nets, bank: Around(nets("relu"), before=Shattered()),
    "shattered input, clean": lambda nets, bank: Around(clean(nets), before=Shattered()),
    "rippling logits": lambda nets, bank: Around(nets("relu"), after=Ripple()),
    "rippling logits, clean": lambda nets, bank: Around(clean(nets), after=Ripple(1.0, 40.0)),
    "input ripple": lambda nets, bank: InputRipple(nets("relu")),
    "input ripple, clean": lambda nets, bank: InputRipple(clean(nets)),
    "decoy": lambda nets, bank: Decoy(nets("relu")),
    "decoy, clean": lambda nets, bank: Decoy(clean(nets)),
    "decoy, one class far away, clean": lambda nets, bank: Decoy(clean(nets), bank),
    "steep decoy, clean": lambda nets, bank: SteepDecoy(clean(nets)),
    "k winners take all": lambda nets, bank: nets("kwta"),
    "k winners take all, clean": lambda nets, bank: nets("kwta", robust=False),
}
"""Name: from Nets and the images judged (a bank, float32 [N, 1, 28, 28]) to the masked network."""
