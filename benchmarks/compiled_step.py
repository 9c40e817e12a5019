"""Is a compiled training step faster? Eager and compiled steps take turns, so that a busy machine is busy for both.

    python -m benchmarks.compiled_step OUT.json [recipe overrides ...]

The default is AdaAD's step of the recipe fashion-mini: the student and its teacher, both ResNet-18 at a quarter width.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from pipeline.data.batches import Batches
from pipeline.data.sets import hold_out, load_dataset
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.runs.distill import network_card
from pipeline.runs.evaluate import device_name
from pipeline.runs.teacher import load_teacher
from pipeline.training.devices import training_device
from pipeline.training.precision import resolve
from pipeline.training.trainer import Trainer
from runtime.files import write_atomic
from runtime.machine.card import software

WARM_UP, ROUNDS = 2, 12


def trainer(overrides: list[str]) -> tuple[Trainer, Batches]:
    """Return a trainer of the recipe and its batches."""
    recipe, device = load_recipe("fashion-mini", overrides), training_device()
    dataset = load_dataset(recipe.data.name, recipe.data.path, preprocessing=recipe.data.size)
    card = network_card(recipe, dataset)
    torch.manual_seed(recipe.seed)
    student = card.build().to(device, memory_format=torch.channels_last)
    assert recipe.teacher is not None
    teacher, _, _ = load_teacher(recipe.teacher, card)
    training, _ = hold_out(dataset.train, recipe.data.holdout, recipe.seed)
    batches = Batches(training, recipe.train.batch, crop=4, flip=True, seed=recipe.seed, device=device)
    precision = resolve(recipe.train.precision, device)
    return Trainer(recipe, student, frozen(teacher).to(device), classes=len(card.classes), precision=precision), batches


def main() -> None:
    """Time steps of both kinds in turns and write their seconds."""
    out, overrides = Path(sys.argv[1]), sys.argv[2:]
    runs = {
        name: trainer([*overrides, f"train.compile={name == 'compiled'}".lower()]) for name in ("eager", "compiled")
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    images, labels = next(runs["eager"][1].epoch(0))
    for number in range(WARM_UP + ROUNDS):
        for name, (run, _) in runs.items():
            began = time.perf_counter()
            run.step(images, labels, number=number, steps_per_epoch=70, steps=280)
            seconds[name].append(time.perf_counter() - began)
            print(f"{name} {number}: {seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    ratios = [a / b for a, b in zip(*(seconds[name][WARM_UP:] for name in ("eager", "compiled")), strict=True)]
    report = {
        "overrides": overrides,
        "device": device_name(training_device()),
        "threads": torch.get_num_threads(),
        "software": software(("torch",)),
        "first_step_seconds": {name: round(values[0], 2) for name, values in seconds.items()},
        "seconds": {name: [round(value, 4) for value in values[WARM_UP:]] for name, values in seconds.items()},
        "eager_over_compiled": {
            "n": len(ratios),
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        },
    }
    write_atomic(out, json.dumps(report, indent=2).encode() + b"\n")


if __name__ == "__main__":
    main()
