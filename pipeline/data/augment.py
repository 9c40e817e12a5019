"""The augmentations, by their names in recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.data.idbh import draw_idbh_weak, idbh_weak
from pipeline.data.shifts import as_float, cropshift, draw_cropshift, draw_pad_crop, pad_crop


@dataclass(frozen=True)
class Augmentation:
    """One row of the table of augmentations.

    Args:
        does: what it does, in half a sentence for `edgeproof recipes`.
        draw: (number of images, `crop`, `flip`, generator on the CPU) to the random numbers that determine how each
            image is changed: float32 [B, K].
        change: (images [B, C, H, W], uint8 or float32 in [0, 1], those numbers on the same device) to images. A pure
            function that never waits for the device.

    """

    does: str
    draw: Callable[[int, int, bool, torch.Generator], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]


AUGMENTATIONS = {
    "pad-crop": Augmentation("pads by data.crop pixels and crops at random", draw_pad_crop, pad_crop),
    "cropshift": Augmentation(
        "crops a rectangle and shifts it to a random place (Li and Spratling, ICLR 2023)", draw_cropshift, cropshift
    ),
    "idbh-weak": Augmentation(
        "cropshift, one change of colour or shape, and a rectangle erased (Li and Spratling, ICLR 2023)",
        draw_idbh_weak,
        idbh_weak,
    ),
}

if TYPE_CHECKING:
    Augment = str
else:
    Augment = Literal[tuple(AUGMENTATIONS)]
Switch = tuple[Annotated[int, Field(gt=0)], Augment]
"""After how many epochs another augmentation takes over, and which one."""


def augment(name: Augment, images: Tensor, draws: Tensor) -> Tensor:
    """Return an augmented batch: float32 [B, C, H, W] in [0, 1], in channels_last.

    Args:
        name: one of AUGMENTATIONS.
        images: [B, C, H, W], uint8 or float32 in [0, 1].
        draws: the numbers from the augmentation's `draw`, [B, K], on the device of the images.

    """
    return as_float(AUGMENTATIONS[name].change(images, draws))
