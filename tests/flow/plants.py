"""Small networks trained as honestly as minutes allow, and the faults that hide a gradient, to be planted in them."""

import torch
import torch.nn.functional as F
from torch import nn

EPS, N, CLASSES = 8 / 255, 128, 10
"""Radius, images judged, and classes of Fashion-MNIST."""


def features():
    return [nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU(), nn.Flatten()]


def trained(images, labels, *, eps):
    """Return a small network, trained on single-step adversarial points within eps, or on clean ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(*features(), nn.Linear(16 * 7 * 7, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    return fitted(network, images, labels, eps=eps)


def fitted(network, images, labels, *, eps, rate=2e-3, seed=0):
    """Train a network for three epochs."""
    optimizer, generator = torch.optim.Adam(network.parameters(), rate), torch.Generator().manual_seed(seed)
    network.train()
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


class ClippedSoftmax(nn.Module):
    """Probabilities that cannot be turned back into logits."""

    def forward(self, z):
        return z.softmax(dim=1).clamp(1e-7, 1.0)


class DropoutLeftOn(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.1, training=True)


class Steps(nn.Module):
    """An activation in levels, an eighth apart: without a gradient of its own."""

    def forward(self, x):
        return torch.round(8 * x.relu()) / 8


class Ramps(nn.Module):
    """The first 17 of these levels, each a ramp so steep that hardly a value lies on one: no operation is a step."""

    def forward(self, x):
        starts = (torch.arange(16) + 0.5) / 8
        return (1e5 * (x[..., None] - starts)).clamp(0, 1).sum(-1) / 8


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


def with_steps(network, kind=Steps):
    layers = [kind() if isinstance(layer, nn.ReLU) else layer for layer in network]
    return nn.Sequential(*layers)
