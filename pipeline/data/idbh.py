"""IDBH-weak (Li and Spratling, ICLR 2023): CropShift, one operation on colour or shape, and a rectangle erased.

Operations, ranges and their order are those of `cifar10-weak` in the published code. That code computes on bytes and
rounds after every step. Here images are float32 in [0, 1] throughout; only `equalize` uses 256 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.shifts import as_float, below, cropshift, draw_cropshift, take

ERASED = 0.5
"""The probability that a rectangle is erased."""
AREA, RATIO, TRIES = (0.02, 0.33), (0.3, 3.3), 10
"""The erased rectangle: ranges of its share of the image and of height / width, and the number of tries to fit one.

They are the defaults of torchvision's RandomErasing, which the published code uses.
"""
LEVELS = 256
GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue, as in torchvision."""
Operation = Callable[[Tensor, Tensor], Tensor]
"""(images [B, C, H, W] in [0, 1], numbers in [0, 1) [B, 3]: how much, which sign, which axis) to images."""


def draw_idbh_weak(count: int, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Draw for `idbh_weak`: float32 [B, 34], first as in `draw_cropshift`, then numbers in [0, 1)."""
    more = torch.rand(count, 7 + 2 * TRIES, generator=generator)
    return torch.cat((draw_cropshift(count, crop, flip, generator), more), dim=1)


def idbh_weak(images: Tensor, draws: Tensor) -> Tensor:
    """Return images [B, C, H, W] in [0, 1], each changed by its row of draws."""
    shift, choice, how, rest = draws[:, :7], draws[:, 7:8], draws[:, 8:11], draws[:, 11:]
    return erase(operate(as_float(cropshift(images, shift)), choice, how), rest)


def operate(images: Tensor, choice: Tensor, how: Tensor) -> Tensor:
    """Change every image by one of OPERATIONS, which are equally likely.

    Args:
        images: [B, C, H, W] in [0, 1].
        choice: selects the operation, in [0, 1): [B, 1].
        how: see `Operation`.

    """
    number = below(choice, len(OPERATIONS)).view(-1, 1, 1, 1)
    changed = images
    for index, operation in enumerate(OPERATIONS.values()):
        changed = torch.where(number == index, operation(images, how), changed)
    return changed


def erase(images: Tensor, draws: Tensor) -> Tensor:
    """Make a rectangle black in half of the images, as torchvision's RandomErasing does.

    Args:
        images: [B, C, H, W].
        draws: whether to erase, position from the top and from the left, then sizes to try: [B, 3 + 2 TRIES] in [0, 1).

    """
    height, width = images.shape[2:]
    whether, top, left = draws[:, :3, None].unbind(1)
    area, ratio = draws[:, 3:].view(-1, TRIES, 2).unbind(2)
    area = height * width * _between(area, AREA)
    ratio = torch.exp(_between(ratio, (math.log(RATIO[0]), math.log(RATIO[1]))))
    tall, broad = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
    fits = (tall < height) & (broad < width)
    first = fits.float().argmax(dim=1, keepdim=True)
    tall, broad = tall.gather(1, first).long(), broad.gather(1, first).long()
    rows = _within(height, below(top, height - tall + 1), tall)
    columns = _within(width, below(left, width - broad + 1), broad)
    chosen = (whether < ERASED) & fits.any(dim=1, keepdim=True)
    return images.masked_fill((chosen[:, :, None] & rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _within(size: int, start: Tensor, length: Tensor) -> Tensor:
    at = torch.arange(size, device=start.device) - start
    return (at >= 0) & (at < length)


def _between(uniform: Tensor, ends: tuple[float, float]) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * uniform


def saturation(images: Tensor, how: Tensor) -> Tensor:
    """Move colours towards grey, or away from it, by a factor of 0.1 to 1.9."""
    return _blended(images, _grey(images), how, (0.1, 1.9))


def brightness(images: Tensor, how: Tensor) -> Tensor:
    """Multiply by 0.5 to 1.9."""
    return _blended(images, torch.zeros_like(images), how, (0.5, 1.9))


def contrast(images: Tensor, how: Tensor) -> Tensor:
    """Move pixels towards the image's mean grey, or away from it, by a factor of 0.5 to 1.9."""
    return _blended(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), how, (0.5, 1.9))


def sharpness(images: Tensor, how: Tensor) -> Tensor:
    """Move pixels towards a blurred image, or away from it, by a factor of 0.1 to 1.9; the border stays as it is."""
    if min(images.shape[2:]) < 3:
        return images
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = (9 * F.avg_pool2d(images, 3, 1) + 4 * images[:, :, 1:-1, 1:-1]) / 13
    return _blended(images, blurred, how, (0.1, 1.9))


def autocontrast(images: Tensor, how: Tensor) -> Tensor:
    """Stretch every channel to [0, 1]; a constant channel is not changed."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    return torch.where(flat, images, (images - low) / (high - low).masked_fill(flat, 1.0))


def equalize(images: Tensor, how: Tensor) -> Tensor:
    """Make all levels of every channel about as frequent: the rule of PIL's ImageOps.equalize, on bytes."""
    levels = (images * (LEVELS - 1)).round().long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], LEVELS, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    step = (levels.shape[2] - counts.gather(2, levels.amax(dim=2, keepdim=True))) // (LEVELS - 1)
    before = counts.cumsum(dim=2) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=LEVELS - 1)
    equal = table.gather(2, levels).view(images.shape) / (LEVELS - 1)
    return torch.where((step > 0)[..., None], equal, images)


def shear(images: Tensor, how: Tensor) -> Tensor:
    """Shear by 0.05 to 0.15 radians to either side, along either axis; what comes from outside is black."""
    slope = torch.tan(_between(how[:, 0], (0.05, 0.15))) * _sign(how)
    level, none = how[:, 2] < 0.5, torch.zeros_like(slope)
    one = torch.ones_like(slope)
    return _warped(images, one, torch.where(level, slope, none), torch.where(level, none, slope), one)


def rotation(images: Tensor, how: Tensor) -> Tensor:
    """Turn by 1 to 10 whole degrees to either side; what comes from outside is black."""
    angle = torch.deg2rad((1 + below(how[:, 0], 10)) * _sign(how))
    cos, sin = torch.cos(angle), torch.sin(angle)
    return _warped(images, cos, -sin, sin, cos)


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (saturation, brightness, contrast, sharpness, autocontrast, equalize, shear, rotation)
}


def _blended(images: Tensor, other: Tensor, how: Tensor, ends: tuple[float, float]) -> Tensor:
    """Return factor * image + (1 - factor) * other, clamped to [0, 1]."""
    factor = _between(how[:, 0], ends).view(-1, 1, 1, 1)
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Return [B, 1, H, W]: the luminance of three channels; the mean of any other number."""
    if images.shape[1] != len(GREY):
        return images.mean(dim=1, keepdim=True)
    red, green, blue = (weight * images[:, channel : channel + 1] for channel, weight in enumerate(GREY))
    return red + green + blue


def _sign(how: Tensor) -> Tensor:
    return 1 - 2 * (how[:, 1] < 0.5).float()


def _warped(images: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """Warp images by one 2 x 2 matrix each, [B] per entry, about the centre, taking the nearest pixel."""
    middle_y, middle_x = ((size - 1) / 2 for size in images.shape[2:])
    y = (torch.arange(images.shape[2], device=images.device) - middle_y)[:, None]
    x = torch.arange(images.shape[3], device=images.device) - middle_x
    xx, xy, yx, yy = (value.view(-1, 1, 1) for value in (xx, xy, yx, yy))
    columns, rows = xx * x + xy * y + middle_x, yx * x + yy * y + middle_y
    return take(images, rows.round().long(), columns.round().long())
