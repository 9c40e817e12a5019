"""Runs small enough to be repeated many times: 8 x 8 images of four kinds, a few steps."""

import functools
import json
import random

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.models.checkpoint import NetworkCard, save_checkpoint
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.training.trainer import Trainer
from runtime.bundle.manifest import InputShape

SMALL = """
name = "small"
[data]
path = "{data}"
holdout = 20
crop = 1
[student]
arch = "resnet18"
width = 0.0625
[teacher]
path = "{data}/teacher.safetensors"
[method]
name = "pgd-at"
[search]
steps = 1
step = "8/255"
[train]
epochs = 2
batch = 20
lr = 0.05
milestones = [1]
"""
STEPS_PER_EPOCH = 5
TAUGHT_STEPS = 40


CARD = NetworkCard(
    arch="resnet18",
    width=0.0625,
    input=InputShape(channels=1, height=8, width=8),
    classes=("0", "1", "2", "3"),
    mean=(0.4,),
    std=(0.2,),
)


def write_small(directory):
    """Write 120 training and 20 test images, a teacher and a recipe; return the recipe's path."""
    for split, (images, labels) in images_of_four_kinds().items():
        np.savez(directory / f"{split}.npz", x=images, y=labels)
    images, labels = images_of_four_kinds()["train"]
    np.savez(directory / "extra.npz", image=255 - images[:50], label=labels[:50])
    recipe = directory / "small.toml"
    recipe.write_text(SMALL.format(data=directory))
    save_checkpoint(directory / "teacher.safetensors", taught(), CARD)
    return recipe


def with_a_frozen_stem(channels, classes):
    """Make a network whose first convolution does not learn."""
    network = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip
    network[0].requires_grad_(False)
    return network


class AtRandom(nn.Module):
    """Skips its layer at random, with Python's numbers, and drops out some of its answers, with PyTorch's."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.dropout = layer, nn.Dropout(0.2)

    def forward(self, x):
        skipped = self.training and random.random() < 0.5
        return x if skipped else x + self.dropout(self.layer(x)).relu()


def with_dropout(channels, classes):
    """Make a network of which each training pass drops out other answers."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


def with_layers_at_random(channels, classes):
    """Make a network whose training passes depend on random numbers."""
    layers = (AtRandom(nn.Conv2d(8, 8, 3, padding=1)) for _ in range(2))
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), *layers, nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


def images_of_four_kinds():
    numbers = np.random.default_rng(0)
    sets = {}
    for split, count in (("train", 120), ("test", 20)):
        labels = np.arange(count) % 4
        images = numbers.integers(0, 120, (count, 1, 8, 8)) + 30 * labels[:, None, None, None]
        sets[split] = images.astype(np.uint8), labels
    return sets


@functools.cache
def taught():
    """Return a teacher that PGD does not bring near chance: a few steps of PGD-AT on the training images."""
    images, labels = images_of_four_kinds()["train"]
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    recipe = {"name": "taught", "data": {"path": "."}, "student": {"arch": "resnet18"}, "method": {"name": "pgd-at"}}
    search, train = {"steps": 2, "step": 4 / 255}, {"epochs": 1, "lr": 0.05, "milestones": []}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        student = CARD.build()
    trainer = Trainer(
        Recipe.model_validate({**recipe, "search": search, "train": train}), student, None, classes=4, precision="fp32"
    )
    for number in range(TAUGHT_STEPS):
        trainer.step(x, y, number=number, steps_per_epoch=TAUGHT_STEPS, steps=TAUGHT_STEPS)
    return student


def small(directory, *overrides):
    return load_recipe(str(write_small(directory)), overrides)


def weights(run, which="last"):
    return load_file(run / f"student.{which}.safetensors")


def assert_equal_bits(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def metrics(run):
    """Return what metrics.jsonl says, without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "seconds")} for line in lines]
