"""Estimates the time on this machine: training steps of the recipes are timed on images of noise."""

import time
from collections.abc import Callable

import torch
from torch import nn

from pipeline.methods import METHODS
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import Recipe
from pipeline.runs.evaluate import TorchSession
from pipeline.training.graphs import recorder_of
from pipeline.training.precision import resolve
from pipeline.training.trainer import Trainer
from runtime.attacks.losses import cross_entropy, one_hot
from tools.cifar10.steps import Way

SIDE, CLASSES = 32, 10
WARM_UP, TIMED = {"cpu": 1, "cuda": 4}, {"cpu": 3, "cuda": 10}
"""Untimed and timed steps, by device: on a GPU, the first steps warm up and are captured."""
BATCH = {"cpu": 8, "cuda": 256}
"""Images in a timed pass, by device; on a CPU also the most images in a timed training step."""
STANDS, FALLS = (1910, 5922), (100, 200)
"""Gradients and forward passes of standard AutoAttack for an image that it does not break (docs/results.md), and
roughly for an image that it breaks."""
STANDING = 0.45
"""The share of images that are assumed to survive."""


def steps_of(recipe: Recipe, images: int) -> int:
    """Return the number of optimiser steps of a recipe, for this many training images including the hold-out."""
    every = recipe.train.epochs * ((images - recipe.data.holdout) // recipe.train.batch)
    return min(every, recipe.train.max_steps or every)


def seconds_of(
    way: Way, teacher: Recipe, student: Recipe, images: int, device: torch.device, attacks_on: torch.device
) -> dict[str, float]:
    """Return the seconds of each command by its name, from a timed step of each recipe and a pass of the student.

    Args:
        way: whose test images are attacked.
        teacher: its recipe.
        student: its recipe.
        images: the number of training images.
        device: which trains.
        attacks_on: the device on which the exported graph is attacked.

    """
    teach, distill = (
        steps_of(recipe, images) * recipe.train.batch * seconds_an_image(recipe, teacher, device)
        for recipe in (teacher, student)
    )
    return {
        "teach": teach,
        "distill": distill,
        "verify": way.images * attack_seconds(network(student), attacks_on),
    }


def seconds_an_image(recipe: Recipe, teacher: Recipe, device: torch.device) -> float:
    """Return the seconds per image of a training step. It is timed on untrained networks, which take as long."""
    size = recipe.train.batch if device.type == "cuda" else min(recipe.train.batch, BATCH["cpu"])
    student = network(recipe).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teaching = frozen(network(teacher).to(device)) if METHODS[recipe.method.name].needs_teacher else None
    precision = resolve(recipe.train.precision, device)
    trainer = Trainer(recipe, student, teaching, classes=CLASSES, precision=precision, recorder=recorder_of(device))
    images = torch.rand(size, 3, SIDE, SIDE, device=device)
    labels = torch.arange(size, device=device) % CLASSES
    return timed(lambda: trainer.step(images, labels, number=0, steps_per_epoch=1, steps=1), device) / size


def attack_seconds(student: nn.Module, device: torch.device) -> float:
    """Return the seconds of AutoAttack per image, computed from timed passes of the network in PyTorch."""
    size = BATCH[device.type]
    session = TorchSession(student, sha256="", device=device)
    images = torch.rand(size, 3, SIDE, SIDE, device=device)
    loss = cross_entropy(one_hot(torch.arange(size, device=device) % CLASSES, CLASSES))
    gradient = timed(lambda: session.loss_gradient(images, loss), device) / size
    forward = timed(lambda: session.logits(images), device) / size
    standing, falling = (passes[0] * gradient + passes[1] * forward for passes in (STANDS, FALLS))
    return STANDING * standing + (1 - STANDING) * falling


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest call after a warm-up, so that brief other work on the machine is left out."""
    taken = []
    for number in range(WARM_UP[device.type] + TIMED[device.type]):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP[device.type]:
            taken.append(time.perf_counter() - began)
    return min(taken)


def network(recipe: Recipe) -> nn.Module:
    """Return the untrained network of a recipe, in training mode."""
    student = recipe.student
    return build_network(student.arch, channels=3, classes=CLASSES, width=student.width, depth=student.depth)
