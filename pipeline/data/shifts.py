"""Shifts and mirrors the images of a batch, each in its own way, by one gather on the batch's device.

The change of an image depends only on its row of random numbers, which are drawn on the CPU and therefore the same for
every device. Changing a batch reads no value from the device, so that it can be captured as a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRONGEST = 10
"""The most rows and columns together that CropShift cuts off, as in the published code for 32 x 32."""


def as_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], in channels_last; float32 images as they are."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return scaled.contiguous(memory_format=torch.channels_last)


def take(images: Tensor, rows: Tensor, columns: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return images in which each pixel is a pixel of the same input image, or black.

    Args:
        images: [B, C, H, W].
        rows: the row from which a pixel is taken, integers that broadcast to [B, H, W].
        columns: likewise, the column.
        inside: bool [B, H, W], where a pixel is taken and not black; by default if row and column are in the image.

    """
    channels, height, width = images.shape[1:]
    if inside is None:
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = (rows * width + columns).masked_fill(~inside, 0).flatten(1)[:, None].expand(-1, channels, -1)
    taken = images.flatten(2).gather(2, places).view(images.shape)
    return taken.masked_fill_(~inside[:, None], 0)


def below(uniform: Tensor, count: Tensor | int) -> Tensor:
    """Turn float32 numbers in [0, 1) into integers from 0 to `count` - 1, which are equally likely."""
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
    """Mirror images, crop a window from each, and paste it at a random place on black (Li and Spratling, ICLR 2023).

    The strength is drawn from 0 to STRONGEST (less if the image is smaller) and split at random between rows and
    columns. The window lacks that many rows and columns and is cropped at a random place. Strength 0 changes nothing.
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
    """Return the source of each of `size` places, and which are filled, for a window that is `less` shorter."""
    at = torch.arange(size, device=less.device) - below(target, less + 1)
    return at + below(source, less + 1), (at >= 0) & (at < size - less)


def _mirror(count: int, flip: bool, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, 1, generator=generator) < (0.5 if flip else 0.0)).float()


def _mirrored(columns: Tensor, mirror: Tensor, width: int) -> Tensor:
    return torch.where(mirror > 0, width - 1 - columns, columns)
