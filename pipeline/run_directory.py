"""A finished training run, read back from its directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from pipeline.checkpoint import Figures, NetworkCard, load_checkpoint
from pipeline.recipe import Precision, Recipe, load_recipe
from runtime.bundle import DataRecord, Digest
from runtime.errors import BadInput
from runtime.files import sha256
from runtime.spec import Frozen

RECIPE, SUMMARY = "recipe.toml", "summary.json"
CHECKPOINTS = {"best": "student.best.safetensors", "last": "student.last.safetensors"}


class TeacherFigures(Frozen):
    """Clean and PGD-10 accuracy of the teacher on the student's `n` hold-out images, as fractions."""

    n: int
    clean: float
    pgd: float


class Summary(Frozen):
    """summary.json: what a finished run was and reached. Accuracies are those of the hold-out images."""

    name: str
    method: str
    seed: int
    best: Figures
    last: Figures
    steps: int
    seconds: float
    images_per_second: float
    precision: Precision
    device: str
    threads: int
    teacher_sha256: Digest | None
    teacher: TeacherFigures | None = None
    training_data: DataRecord
    software: dict[str, str]


@dataclass(frozen=True)
class TrainedRun:
    """What a run left: the network in eval mode, its card and digest, the resolved recipe and the summary."""

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
    try:
        summary = Summary.model_validate_json((directory / SUMMARY).read_bytes())
    except OSError:
        raise BadInput(
            f"{directory} is not a finished run: it has no {SUMMARY}", hint="train one with `edgeproof distill RECIPE`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise BadInput(f"{directory / SUMMARY}: {first}", hint="the file is damaged, or of another version") from None
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
