"""A finished training run, read back from its directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.checkpoint import NetworkCard, load_checkpoint
from pipeline.recipe import Recipe, load_recipe
from runtime.errors import BadInput
from runtime.files import sha256

RECIPE, SUMMARY = "recipe.toml", "summary.json"
CHECKPOINTS = {"best": "student.best.safetensors", "last": "student.last.safetensors"}


@dataclass(frozen=True)
class TrainedRun:
    """What a run left: the network in eval mode, its card and digest, the resolved recipe and the summary."""

    recipe: Recipe
    recipe_sha256: str
    network: nn.Module
    card: NetworkCard
    checkpoint: str
    checkpoint_sha256: str
    summary: dict[str, Any]


def open_run(directory: Path, checkpoint: str) -> TrainedRun:
    """Read a run directory and one of its checkpoints, 'best' or 'last'.

    Raises:
        BadInput: the run is not finished, or a file is damaged.

    """
    recipe_file, path = directory / RECIPE, directory / CHECKPOINTS[checkpoint]
    try:
        summary = json.loads((directory / SUMMARY).read_bytes())
    except OSError:
        raise BadInput(
            f"{directory} is not a finished run: it has no {SUMMARY}", hint="train one with `edgeproof distill RECIPE`"
        ) from None
    except ValueError as error:
        raise BadInput(f"{directory / SUMMARY}: {error}", hint="the file is damaged") from None
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
