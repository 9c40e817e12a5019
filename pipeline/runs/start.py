"""What a run with [int8] begins with: a finished student, and the images that set its ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from pipeline.models.checkpoint import NetworkCard, load_checkpoint
from pipeline.recipe.schema import Int8Table
from pipeline.runs.directory import CHECKPOINTS
from runtime.errors import BadRecipe
from runtime.files import sha256
from runtime.images.image_set import ImageSet


@dataclass(frozen=True)
class Start:
    """The network that a run begins with, and the digest of its file."""

    network: nn.Module
    sha256: str


def open_start(table: Int8Table, card: NetworkCard) -> Start:
    """Load what [int8] names.

    Args:
        table: names a run, of which the best checkpoint is taken, or a checkpoint.
        card: the network of the recipe, which it must be.

    Raises:
        BadModel: there is no such checkpoint, or it is damaged.
        BadRecipe: it is of another network, of other images or of other classes.

    """
    path = table.start / CHECKPOINTS["best"] if table.start.is_dir() else table.start
    network, own = load_checkpoint(path)
    for name in type(card).model_fields:
        there, here = getattr(own, name), getattr(card, name)
        if name != "figures" and there != here:
            raise BadRecipe(
                f"int8.start: {path} has {name} = {there}, and this recipe makes {here}",
                hint="take [data] and [student] from the recipe that trained it",
            )
    return Start(network, sha256(path.read_bytes()))


def calibration_images(training: ImageSet, count: int, seed: int) -> ImageSet:
    """Draw `count` training images by `seed`; all of them where there are no more."""
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(len(training))[:count]
    return training.rows(np.sort(drawn))
