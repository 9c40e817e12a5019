"""The start of a run with [int8]: a finished student, and the images that set its ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from pipeline.models.checkpoint import NetworkCard, load_checkpoint
from pipeline.recipe.tables import Int8Table
from pipeline.runs.directory import CHECKPOINTS, read_summary
from runtime.errors import BadRecipe
from runtime.files import sha256
from runtime.images.image_set import ImageSet
from runtime.spec import DataRecord


@dataclass(frozen=True)
class Start:
    """The network with which a run begins, and the digest of its file.

    Args:
        network: the network with its weights.
        sha256: the digest of its file.
        vouched: whether the summary of its run shows that it was trained on the images on which this run trains.

    """

    network: nn.Module
    sha256: str
    vouched: bool


def open_start(table: Int8Table, card: NetworkCard, training: DataRecord) -> Start:
    """Load the network that [int8] names.

    Args:
        table: names a checkpoint, or a run whose best checkpoint is used.
        card: the network of the recipe; that of the checkpoint must be the same.
        training: the images of the recipe without its hold-out. The checkpoint must have been trained on the same
            images: with another hold-out, the figures would be measured on training images and be too good.

    Raises:
        BadInput: the summary of its run is damaged.
        BadModel: there is no such checkpoint, or it is damaged.
        BadRecipe: the checkpoint has another network or other classes, or was trained on other images.

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
    summary = read_summary(path.parent)
    if summary is not None and summary.training_data.sha256 != training.sha256:
        raise BadRecipe(
            f"int8.start: {path} was trained on other images than this recipe trains on, perhaps on its hold-out",
            hint="take seed and [data] from the recipe that trained it",
        )
    return Start(network, sha256(path.read_bytes()), vouched=summary is not None)


def calibration_images(training: ImageSet, count: int, seed: int) -> ImageSet:
    """Draw `count` training images by `seed`, or all of them if there are fewer."""
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(len(training))[:count]
    return training.rows(np.sort(drawn))
