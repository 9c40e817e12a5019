"""Compares one training step on CUDA with the same step on the CPU."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor, nn

from pipeline.methods.search import Precision
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.training.trainer import Trainer
from runtime.errors import MissingEnvironment
from runtime.gpu_check.checks import CheckContext
from runtime.records.gpu_check import Result

NAME = "training"
BATCH, CLASSES, SIDE = 32, 10, 32
STEPS = 5
LOSS_APART, COSINE = 1e-2, 0.99
"""Limits in float32, after ten steps of the search: relative difference of the losses, and cosine of the gradients."""
OVERRIDES = ("method.name=adaad", "student.width=0.25", f"train.batch={BATCH}", "train.epochs=1")


def training(given: CheckContext) -> Result:
    """Compare loss and gradient of AdaAD's step in float32; run the step in every precision that CUDA trains in.

    Raises:
        MissingEnvironment: PyTorch has no CUDA device.

    """
    if not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        raise MissingEnvironment(f"PyTorch {torch.__version__} ({built}) finds no GPU", hint="see `nvidia-smi`")
    return compared(torch.device("cuda"))


def compared(device: torch.device) -> Result:
    """Compare a device with the CPU, and measure how fast a step runs there."""
    recipe = load_recipe("fashion-mini", list(OVERRIDES))
    student, teacher, batch = parts()
    here = differentiated(recipe, student, teacher, batch, torch.device("cpu"))
    there = differentiated(recipe, student, teacher, batch, device)
    apart = abs(there[0] - here[0]) / abs(here[0])
    cosine = nn.functional.cosine_similarity(there[1].double(), here[1].double(), dim=0).item()
    figures = {"loss apart": apart, "cosine of gradients": cosine}
    precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")
    for precision in precisions:
        loss, seconds = stepped(recipe, student, teacher, batch, device, precision)
        figures[f"{precision}: loss"] = loss
        figures[f"{precision}: images a second"] = round(BATCH / seconds, 1)
    agrees = all(map(math.isfinite, figures.values())) and apart <= LOSS_APART and cosine >= COSINE
    what = f"one step of AdaAD: loss apart by {apart:.1e}, cosine of gradients {cosine:.6f}"
    return Result(name=NAME, state="agrees" if agrees else "differs", message=what, figures=in_json(figures))


def in_json(figures: dict[str, float]) -> dict[str, float | str]:
    """Return figures with NaN and infinity as words, since JSON has none."""
    return {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}


def parts() -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor, Tensor]]:
    """Return student, teacher, and (images, labels, noise), on the CPU. They are the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, teacher = (build_network("resnet18", channels=3, classes=CLASSES, width=0.25) for _ in range(2))
        images = torch.rand(BATCH, 3, SIDE, SIDE)
        noise = 0.001 * torch.randn_like(images)
    return student, frozen(teacher), (images, torch.arange(BATCH) % CLASSES, noise)


def differentiated(
    recipe: Recipe, student: nn.Module, teacher: nn.Module, batch: tuple[Tensor, Tensor, Tensor], device: torch.device
) -> tuple[float, Tensor]:
    """Return the loss of a batch and its gradient in all weights [D], in float32."""
    trainer = on(recipe, student, teacher, device, "fp32")
    images, labels, noise = (tensor.to(device) for tensor in batch)
    loss = trainer.differentiate((images, labels, noise), 0.0)
    gradients = [weight.grad.flatten() for weight in trainer.student.parameters() if weight.grad is not None]
    return loss.item(), torch.cat(gradients).cpu()


def stepped(
    recipe: Recipe,
    student: nn.Module,
    teacher: nn.Module,
    batch: tuple[Tensor, Tensor, Tensor],
    device: torch.device,
    precision: Precision,
) -> tuple[float, float]:
    """Take STEPS optimiser steps, after one to warm up; return the last loss and the seconds of one step."""
    trainer = on(recipe, student, teacher, device, precision)
    images, labels = batch[0].to(device), batch[1].to(device)
    trainer.step(images, labels, number=0, steps_per_epoch=100, steps=100)
    began = time.perf_counter()
    for number in range(STEPS):
        loss = trainer.step(images, labels, number=number + 1, steps_per_epoch=100, steps=100)
    return loss.item(), (time.perf_counter() - began) / STEPS


def on(recipe: Recipe, student: nn.Module, teacher: nn.Module, device: torch.device, precision: Precision) -> Trainer:
    """Return a trainer of copies of both networks on a device."""
    learner = copy.deepcopy(student).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    guide = copy.deepcopy(teacher).to(device)
    return Trainer(recipe, learner, guide, classes=CLASSES, precision=precision)
