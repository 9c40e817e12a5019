"""Small networks of many kinds, trained as honestly as minutes allow: no check may find anything on them."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.flow.plants import CLASSES, EPS, Around, fitted


class Residual(nn.Module):
    """`dropped`: the gradient of 'body' or 'skip' is not taken, a fault of a gradient graph; the answer is the same."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.dropped = None

    def forward(self, x):
        body = self.body(x)
        body = body.detach() if self.dropped == "body" else body
        return F.relu((x.detach() if self.dropped == "skip" else x) + body)


class ViT(nn.Module):
    """A vision transformer of two blocks over 4 x 4 patches."""

    def __init__(self, width=32, depth=2):
        super().__init__()
        self.patch = nn.Conv2d(1, width, 7, 7)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "n1": nn.LayerNorm(width),
                    "a": nn.MultiheadAttention(width, 4, batch_first=True),
                    "n2": nn.LayerNorm(width),
                    "m": nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
                }
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, CLASSES))

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            normed = block["n1"](tokens)
            tokens = tokens + block["a"](normed, normed, normed, need_weights=False)[0]
            tokens = tokens + block["m"](block["n2"](tokens))
        return self.head(tokens.mean(1))


class KWTA(nn.Module):
    """k winners take all: the activations that stay jump with every small move (Xiao et al. 2020). A mask."""

    def __init__(self, share=0.1):
        super().__init__()
        self.share = share

    def forward(self, x):
        flat = x.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


class LogSoftmax(nn.Module):
    def forward(self, z):
        return z.log_softmax(1)


class Scale(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, z):
        return self.by * z


def conv_net(act=nn.ReLU):
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2),
        act(),
        nn.Conv2d(8, 16, 5, 2, 2),
        act(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 32),
        act(),
        nn.Linear(32, CLASSES),
    )


def pool_net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 49, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


def res_net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(8),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


ARCHITECTURES = {
    "relu": (conv_net, 2e-3),
    "tanh": (lambda: conv_net(nn.Tanh), 2e-3),
    "silu": (lambda: conv_net(nn.SiLU), 2e-3),
    "pool": (pool_net, 2e-3),
    "resnet": (res_net, 3e-3),
    "vit": (ViT, 2e-3),
    "kwta": (lambda: conv_net(KWTA), 2e-3),
}
"""Name: what makes it, and its learning rate."""


class Nets:
    """Networks by architecture and whether they are robust, each trained when it is first asked for."""

    def __init__(self, images, labels):
        self.images, self.labels, self.made = images, labels, {}

    def __call__(self, name, robust=True, seed=0):
        key = name, robust, seed
        if key not in self.made:
            make, rate = ARCHITECTURES[name]
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                network = make()
            self.made[key] = fitted(network, self.images, self.labels, eps=EPS if robust else 0, rate=rate, seed=seed)
        return self.made[key]


HONEST = {
    "relu": lambda nets: nets("relu"),
    "relu, clean": lambda nets: nets("relu", robust=False),
    "tanh": lambda nets: nets("tanh"),
    "silu, clean": lambda nets: nets("silu", robust=False),
    "max pooling": lambda nets: nets("pool"),
    "max pooling, clean": lambda nets: nets("pool", robust=False),
    "resnet": lambda nets: nets("resnet"),
    "resnet, clean": lambda nets: nets("resnet", robust=False),
    "vit": lambda nets: nets("vit"),
    "vit, clean": lambda nets: nets("vit", robust=False),
    "log-softmax": lambda nets: Around(nets("relu"), after=LogSoftmax()),
    "logits x30": lambda nets: Around(nets("relu"), after=Scale(30.0)),
    "logits x1000": lambda nets: Around(nets("relu"), after=Scale(1000.0)),
    "logits x30, clean": lambda nets: Around(nets("relu", robust=False), after=Scale(30.0)),
    "logits /30": lambda nets: Around(nets("relu"), after=Scale(1 / 30)),
}
"""Name: from Nets to the network."""
