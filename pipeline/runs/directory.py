"""The directory of a training run: claims it for training, and reads it when the run is finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from pipeline.methods.search import Precision
from pipeline.models.checkpoint import Figures, NetworkCard, load_checkpoint
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.tracking.trackers import TRACKED
from runtime.errors import BadInput, BadRecipe, UsageFault
from runtime.files import check_new_directory, remove_half_written, sha256
from runtime.locks import lock_if_free
from runtime.spec import DataRecord, Digest, Frozen, Name, Text, first_fault
from runtime.words import percent, points

RECIPE, SUMMARY = "recipe.toml", "summary.json"
METRICS, STATE = "metrics.jsonl", "state/training.safetensors"
CHECKPOINTS = {"best": "student.best.safetensors", "last": "student.last.safetensors"}


class TeacherFigures(Frozen):
    """Clean and PGD-10 accuracy of the teacher on the student's `n` hold-out images, as fractions."""

    n: int
    clean: float
    pgd: float


class Judged(Frozen):
    """Accuracy of both checkpoints on the `n` hold-out images, as fractions, under an attack that chose neither.

    `overfitting` is the accuracy of the best minus that of the last: robust overfitting (Rice et al., ICML 2020). The
    best was chosen on these images by a shorter attack, so the difference of equal checkpoints is above 0 by chance.
    """

    attack: Text
    n: int
    best: float
    last: float
    overfitting: float

    def __str__(self) -> str:
        """Describe it for a user."""
        lost = f"robust overfitting of {points(self.overfitting)}" if self.overfitting > 0 else "no robust overfitting"
        return f"{self.attack.upper()}: best {percent(self.best)}, last {percent(self.last)}: {lost}"


class Summary(Frozen):
    """summary.json: settings and results of a finished run. Accuracies are on the hold-out images.

    `search_precision` is None if the recipe sets none: the search then uses `precision`.

    Every batch norm saw `norm_batch` images. This is the whole batch on one device, and less on several devices, with
    micro-batches, or if a batch did not fit the device's memory. It is None with [int8], which does not change the
    statistics. `judged` is None in a run of an earlier version. `start_sha256` is the digest of the checkpoint that a
    run with [int8] started from.
    """

    name: Name
    method: Text
    seed: int
    best: Figures
    last: Figures
    judged: Judged | None = None
    steps: int
    seconds: float
    images_per_second: float
    precision: Precision
    search_precision: Precision | None = None
    device: Text
    threads: int
    devices: int = 1
    norm_batch: int | None = None
    teacher_sha256: Digest | None
    teacher: TeacherFigures | None = None
    training_data: DataRecord
    extra_data: DataRecord | None = None
    start_sha256: Digest | None = None
    software: dict[Text, Text]


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: the network in eval mode, its card and digest, the resolved recipe and the summary."""

    recipe: Recipe
    recipe_sha256: str
    network: nn.Module
    card: NetworkCard
    checkpoint: str
    checkpoint_sha256: str
    summary: Summary


def open_run(directory: Path, checkpoint: str) -> TrainedRun:
    """Read a run directory and one of its checkpoints, 'best' or 'last'.

    Raises:
        BadInput: the run is not finished, or a file is damaged.

    """
    recipe_file, path = directory / RECIPE, directory / CHECKPOINTS[checkpoint]
    summary = read_summary(directory)
    if summary is None:
        raise BadInput(
            f"{directory} is not a finished run: it has no {SUMMARY}", hint="train one with `edgeproof distill RECIPE`"
        )
    network, card = load_checkpoint(path)
    return TrainedRun(
        recipe=load_recipe(str(recipe_file)),
        recipe_sha256=sha256(recipe_file.read_bytes()),
        network=network.eval(),
        card=card,
        checkpoint=checkpoint,
        checkpoint_sha256=sha256(path.read_bytes()),
        summary=summary,
    )


def read_summary(directory: Path) -> Summary | None:
    """Read summary.json; None if the run is not finished.

    Raises:
        BadInput: the file is damaged.

    """
    try:
        return Summary.model_validate_json((directory / SUMMARY).read_bytes())
    except OSError:
        return None
    except ValidationError as error:
        hint = "the file is damaged, or of another version"
        raise BadInput(f"{directory / SUMMARY}: {first_fault(error)}", hint=hint) from None


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Hold a run directory for this process until the block or the process ends; create it if needed.

    A directory that was created and stays empty is removed again.

    Raises:
        UsageFault: another process has it.
        MissingEnvironment: its file system has no locks.

    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with lock_if_free(directory) as mine:
            if not mine:
                raise UsageFault(
                    f"another process is training in {directory}", hint="wait for it to end, or give another --out"
                )
            yield
    finally:
        with suppress(OSError):
            directory.rmdir()


def claim(directory: Path, recipe: Recipe, *, resume: bool) -> Summary | None:
    """Check that a recipe may be trained in a directory, new or resumed; return its summary if it is finished.

    Resuming a run that has not begun starts it. Half-written files of a killed process are removed.

    Raises:
        UsageFault: the directory is not empty, and `resume` is false or it holds no run.
        BadRecipe: the run began with another recipe.
        BadInput: the saved recipe or summary is damaged.
        MissingEnvironment: the directory cannot be written to.

    """
    if resume and directory.is_dir():
        for file in (RECIPE, SUMMARY, METRICS, STATE, TRACKED, *CHECKPOINTS.values()):
            path = directory / file
            remove_half_written(path.parent, path.name)
        if (directory / RECIPE).is_file():
            check_same_recipe(load_recipe(str(directory / RECIPE)), recipe)
            return read_summary(directory)
    try:
        check_new_directory(directory, resumable=True)
    except UsageFault as fault:
        if (directory / RECIPE).is_file():
            fault.hint = "go on with the run there with --resume, or name another --out"
        raise
    return None


def check_same_recipe(before: Recipe, now: Recipe) -> None:
    """Raise `BadRecipe` unless the recipe of a run is the one with which it began; name every key that differs."""
    was, is_now = _flat(before.to_dict()), _flat(now.to_dict())
    changed = [key for key in sorted(was | is_now) if was.get(key) != is_now.get(key)]
    if changed:
        told = "\n".join(f"  {key}: {was.get(key, 'none')}, now {is_now.get(key, 'none')}" for key in changed)
        raise BadRecipe(
            f"the run began with another recipe:\n{told}", hint="resume with the same recipe, or give another --out"
        )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the keys of nested tables as paths."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
