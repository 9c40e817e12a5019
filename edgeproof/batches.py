"""Checks a batch of a training loop before a method trains on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from runtime.errors import BadData

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


def check_form(images: Tensor, labels: Tensor, networks: Iterable[nn.Module]) -> None:
    """Check shape, type and device of a batch, without waiting for the device.

    Args:
        images: should be floats [B, C, H, W].
        labels: should be int64 [B].
        networks: the student, and the teacher if there is one.

    Raises:
        BadData: one is no tensor, shape or type is wrong, or the batch is on another device than the networks.

    """
    for what, given in (("images", images), ("labels", labels)):
        if not isinstance(given, torch.Tensor):
            raise BadData(f"{what} are of type {type(given).__name__}", hint=f"torch.as_tensor({what}), on the device")
    numbers = labels.dtype == torch.int64 and labels.shape == images.shape[:1]
    if images.ndim != 4 or not images.is_floating_point() or not numbers or not len(images):
        raise BadData(
            f"images are {images.dtype} of shape {tuple(images.shape)}, "
            f"labels {labels.dtype} of shape {tuple(labels.shape)}",
            hint="float32 [B, C, H, W] in [0, 1] and int64 [B], the class of each image",
        )
    devices = {str(next(network.parameters(), images).device) for network in networks}
    if {str(images.device), str(labels.device)} != devices:
        raise BadData(
            f"student and teacher are on {' and '.join(sorted(devices))}, images on {images.device}, "
            f"labels on {labels.device}",
            hint="bring all to one device: images.to(device), labels.to(device), network.to(device)",
        )


def check_images(images: Tensor) -> None:
    """Check that images are in [0, 1]. This waits for their device.

    Raises:
        BadData: a value is outside, or NaN.

    """
    low, high = (float(end) for end in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise BadData(
            f"images have values from {low:g} to {high:g}, or NaN",
            hint="scale them to [0, 1], and put the normalisation into the network",
        )


def check_labels(labels: Tensor, classes: int) -> None:
    """Check that labels are class numbers. This waits for their device.

    Raises:
        BadData: a label is below 0, or not below the number of the student's classes.

    """
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= classes:
        raise BadData(
            f"labels go from {low} to {high}, and the student has {classes} classes",
            hint="labels are class numbers from 0, in the order of the logits",
        )
