"""Shifted, mirrored images of a batch: each image in its own way, in one gather on the batch's device.

How an image is changed follows from its row of numbers alone, drawn on the CPU: alike for every device. What changes a
batch asks the device for nothing, so that it can be captured.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRONGEST = 10
"""Pixels that CropShift cuts off at most, both directions together, as the published code does at 32 x 32."""


def as_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], in channels_last; float32 images as they are."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return scaled.contiguous(memory_format=torch.channels_last)


def take(images: Tensor, rows: Tensor, columns: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return images whose every pixel is one of its own, or black.

    Args:
        images: [B, C, H, W].
        rows: where a pixel comes from, integers that broadcast to [B, H, W].
        columns: likewise.
        inside: bool [B, H, W], where there is such a pixel; by default where it lies in the image.

    """
    channels, height, width = images.shape[1:]
    if inside is None:
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = (rows * width + columns).masked_fill(~inside, 0).flatten(1)[:, None].expand(-1, channels, -1)
    taken = images.flatten(2).gather(2, places).view(images.shape)
    return taken.masked_fill_(~inside[:, None], 0)


def below(uniform: Tensor, count: Tensor | int) -> Tensor:
    """Turn float32 numbers in [0, 1) into integers from 0 that are below `count`, each as likely."""
    return (uniform * count).long()


def draw_pad_crop(count: int, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Draw for `pad_crop`: float32 [B, 3], shifts down and right by up to `crop` pixels, and whether to mirror."""
    down, right = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator) - crop
    return torch.cat((down, right, _mirror(count, flip, generator)), dim=1)


def pad_crop(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror images, and shift them over black: the usual random crop of a padded image."""
    height, width = images.shape[2:]
    down, right, mirror = draws[:, :, None].unbind(1)
    rows = torch.arange(height, device=images.device) + down.long()
    columns = _mirrored(torch.arange(width, device=images.device), mirror, width) + right.long()
    return take(images, rows[:, :, None], columns[:, None, :])


def draw_cropshift(count: int, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Draw for `cropshift`: float32 [B, 7], whether to mirror, and six numbers in [0, 1); `crop` is not used."""
    return torch.cat((_mirror(count, flip, generator), torch.rand(count, 6, generator=generator)), dim=1)


def cropshift(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror images, cut a window out of each and put it down anywhere on black (Li and Spratling, ICLR 2023).

    The strength is 0 to STRONGEST, less where the image is smaller; it is divided at random between columns and rows.
    So many are missing in the window, which comes from anywhere in the image. At strength 0 the image stays whole.
    """
    height, width = images.shape[2:]
    mirror, *uniforms = draws[:, :, None].unbind(1)
    strength = below(uniforms[0], 1 + min(STRONGEST, height - 1, width - 1))
    narrower = below(uniforms[1], strength + 1)
    rows, vertical = _window(height, strength - narrower, uniforms[2], uniforms[3])
    columns, horizontal = _window(width, narrower, uniforms[4], uniforms[5])
    inside = vertical[:, :, None] & horizontal[:, None, :]
    return take(images, rows[:, :, None], _mirrored(columns, mirror, width)[:, None, :], inside)


def _window(size: int, less: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each of `size` places comes from, and which are filled, for a window that is `less` shorter."""
    at = torch.arange(size, device=less.device) - below(target, less + 1)
    return at + below(source, less + 1), (at >= 0) & (at < size - less)


def _mirror(count: int, flip: bool, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, 1, generator=generator) < (0.5 if flip else 0.0)).float()


def _mirrored(columns: Tensor, mirror: Tensor, width: int) -> Tensor:
    return torch.where(mirror > 0, width - 1 - columns, columns)
