"""The training run: batches through the trainer, the hold-out after every epoch, the best and the last kept."""

from __future__ import annotations

import math
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.batches import Batches
from pipeline.checkpoint import Figures, NetworkCard, save_checkpoint
from pipeline.data import Dataset, hold_out, load_dataset
from pipeline.evaluate import device_name, holdout_accuracy
from pipeline.precision import resolve
from pipeline.progress import TrainingLog
from pipeline.recipe import Recipe
from pipeline.run_directory import CHECKPOINTS, RECIPE, SUMMARY, Summary
from pipeline.teacher import prepare_teacher
from pipeline.trainer import Trainer
from runtime.bundle import DataRecord, InputShape
from runtime.device import software
from runtime.errors import NonFinite
from runtime.files import check_new_directory, write_atomic
from runtime.images import DATA_ROOT, ImageSet
from runtime.progress import log as say
from runtime.spec import to_json


def distill(recipe: Recipe, out: Path, *, data_root: Path = DATA_ROOT, allow_weak_teacher: bool = False) -> Summary:
    """Run a recipe; leave recipe.toml, both checkpoints, the logs and summary.json in `out`; return the summary.

    Raises:
        UsageFault: `out` is not empty.
        BadData, BadModel, BadRecipe: data, teacher and recipe do not fit; nothing has been written then.
        NonFinite: the loss is no longer a number.

    """
    check_new_directory(out)
    device = training_device()
    precision = resolve(recipe.train.precision, device)
    dataset = load_dataset(recipe.data.name, recipe.data.path, data_root)
    training, holdout = hold_out(dataset.train, recipe.data.holdout, recipe.seed)
    card = network_card(recipe, dataset)
    teacher = prepare_teacher(recipe, card, holdout, device, allow_weak=allow_weak_teacher)
    if teacher is not None:
        say(str(teacher))
    torch.manual_seed(recipe.seed)  # the initial weights
    student = card.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = recipe.data
    batches = Batches(
        training,
        recipe.train.batch,
        crop=data.crop,
        flip=data.flip,
        seed=recipe.seed,
        device=device,
        place=data.place,
    )
    steps = min(recipe.train.epochs * len(batches), recipe.train.max_steps or sys.maxsize)

    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / RECIPE, recipe.to_toml().encode())
    trainer = Trainer(
        recipe, student, teacher.network if teacher else None, classes=len(card.classes), precision=precision
    )
    started = time.monotonic()
    best: Figures | None = None
    with TrainingLog(out, steps=steps, steps_per_epoch=len(batches), batch=batches.size) as log:
        log.say(f"{recipe.name}: {recipe.method.name} on {len(training.labels)} images, {device}, {precision}")
        for epoch in range(math.ceil(steps / len(batches))):
            _train_epoch(trainer, batches, epoch, steps, log)
            clean, pgd = holdout_accuracy(
                trainer.folded.refresh(), holdout, classes=len(card.classes), eps=recipe.threat.eps, device=device
            )
            last = Figures(epoch=epoch + 1, n=len(holdout.labels), clean=clean, pgd=pgd)
            log.figures(last)
            save_checkpoint(out / CHECKPOINTS["last"], student, card.model_copy(update={"figures": last}))
            if best is None or (last.pgd, last.clean) > (best.pgd, best.clean):
                best = last
                save_checkpoint(out / CHECKPOINTS["best"], student, card.model_copy(update={"figures": best}))
    assert best is not None
    summary = Summary(
        name=recipe.name,
        method=recipe.method.name,
        seed=recipe.seed,
        best=best,
        last=last,
        steps=steps,
        seconds=round(time.monotonic() - started, 1),
        images_per_second=round(log.images_per_second, 1),
        precision=precision,
        device=device_name(device),
        threads=torch.get_num_threads(),
        teacher_sha256=teacher.sha256 if teacher else None,
        teacher=teacher.figures if teacher else None,
        training_data=DataRecord(name=training.name, n=len(training), sha256=training.sha256),
        software={"python": platform.python_version(), **software(("edgeproof", "torch"))},
    )
    write_atomic(out / SUMMARY, to_json(summary))
    return summary


def training_device() -> torch.device:
    """Return the CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network_card(recipe: Recipe, dataset: Dataset) -> NetworkCard:
    """Describe the student of a recipe: its shape and normalisation follow from the training images."""
    channels, height, width = dataset.train.images.shape[1:]
    mean, std = _mean_and_std(dataset.train)
    return NetworkCard(
        arch=recipe.student.arch,
        width=recipe.student.width,
        depth=recipe.student.depth,
        input=InputShape(channels=channels, height=height, width=width),
        classes=dataset.classes,
        mean=mean,
        std=std,
    )


def _mean_and_std(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, to four digits; the latter at least 1/255."""
    total = squares = np.zeros(images.images.shape[1])
    for start in range(0, len(images), 1000):
        x = images.as_float(slice(start, start + 1000)).astype(np.float64)
        total, squares = total + x.sum(axis=(0, 2, 3)), squares + (x**2).sum(axis=(0, 2, 3))
    pixels = images.images.size / len(total)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    rounded = (tuple(round(float(value), 4) for value in values) for values in (mean, np.maximum(std, 1 / 255)))
    return next(rounded), next(rounded)


def _train_epoch(trainer: Trainer, batches: Batches, epoch: int, steps: int, log: TrainingLog) -> None:
    first = epoch * len(batches)
    for number, (images, labels) in zip(range(first, steps), batches.epoch(epoch), strict=False):
        began = time.monotonic()
        loss = trainer.step(images, labels, number=number, steps_per_epoch=len(batches), steps=steps)
        if not math.isfinite(loss):
            raise NonFinite(f"the loss is {loss} at step {number + 1}", hint="lower train.lr")
        log.step(number + 1, loss=loss, seconds=time.monotonic() - began)
