"""Pictures of mixed sizes in class folders, and a torchvision network of 1,000 classes that knows four of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOOKS = {
    "goldfish": ((1, 0.4, 0.2), 4),
    "tiger shark": ((0.3, 1, 0.3), 9),
    "tabby": ((0.2, 0.4, 1), 16),
    "zebra": ((0.9, 0.9, 0.3), 30),
}
"""Colour, and stripes across the height, by the name of the class."""


def picture(name: str, random: np.random.Generator, sides: tuple[int, int]) -> Image.Image:
    """Draw one, of a size between two sides: stripes in some place, light or dark, and noise."""
    colour, stripes = LOOKS[name]
    height, width = (int(side) for side in random.integers(*sides, 2))
    y, x = np.mgrid[0:height, 0:width] / height
    angle = np.pi * list(LOOKS).index(name) / 4
    wave = np.sin(2 * np.pi * (stripes * (np.cos(angle) * x + np.sin(angle) * y) + random.random()))
    pixels = np.asarray(colour) * (110 + 60 * wave[..., None] + random.normal(0, 15))
    noisy = pixels + random.normal(0, 10, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def class_folders(place: Path, count: int, seed: int, sides: tuple[int, int]) -> None:
    """Draw `count` pictures of each class, JPEG and PNG."""
    random = np.random.default_rng(seed)
    for name in LOOKS:
        (place / name).mkdir(parents=True)
        for number in range(count):
            picture(name, random, sides).save(place / name / f"{number:03}.{('jpg', 'png')[number % 2]}")


def weights_of(arch: str) -> Mapping[str, Any]:
    """Return weights of a torchvision classifier of 1,000 classes that tells the pictures apart.

    Random features whose ReLUs are mostly open, as smooth as a network that was trained; the last layer is fitted to
    them in closed form.
    """
    published = get_model_weights(arch).DEFAULT  # for its classes and its preprocessing; nothing is fetched
    classes, transform = published.meta["categories"], published.transforms()
    random, torch_random = np.random.default_rng(3), torch.Generator().manual_seed(0)
    names = [name for name in LOOKS for _ in range(12)]
    x = torch.stack([transform(picture(name, random, (160, 320))) for name in names])
    labels = [classes.index(name) for name in names]
    network = get_model(arch)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=torch_random)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the one batch that follows
            nn.init.constant_(module.weight, 0.5)
            nn.init.constant_(module.bias, 1)
    with torch.no_grad():
        network.train()(x[::2])
        last, network.fc = network.eval().fc, nn.Identity()
        features = network(x)
        wanted = torch.full((len(x), len(classes)), -0.1)
        wanted[range(len(x)), labels] = 8
        centred, mean = features - features.mean(0), wanted.mean(0)
        inner = centred @ centred.T
        ridge = 0.05 * inner.trace() / len(x) * torch.eye(len(x))
        last.weight.copy_((centred.T @ torch.linalg.solve(inner + ridge, wanted - mean)).T)
        last.bias.copy_(mean - last.weight @ features.mean(0))
        network.fc = last
    return network.state_dict()
