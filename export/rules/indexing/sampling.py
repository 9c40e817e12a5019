"""GridSample: pixels read between others, at places of which each is a corner's share."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from export.graph.broadcast import sum_over

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node

LINEAR = (b"bilinear", b"linear")
PADDINGS = (b"zeros", b"border")


class Place(NamedTuple):
    """Along one axis: the pixel below [B, h, w], the way from it, the pixels' number, and the slope of the place."""

    below: str
    beyond: str
    size: int
    slope: str


def grid_sample(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give each of the four pixels about a place its share, and the place the slope between them.

    Images [B, C, H, W], places [B, h, w, 2] as (x, y) from -1 to 1.
    """
    padding = node.attribute("padding_mode", b"zeros")
    if node.attribute("mode", b"linear") not in LINEAR or padding not in PADDINGS or len(node.shape()) != 4:
        raise node.refused("only images sampled linearly, with zeros or the border around them, are differentiated")
    channels, height, width = node.sizes(node.shape())
    out = node.sizes(node.output_shape, 2)
    count = out[0] * out[1]
    places = [_place(emit, node, axis, size, border=padding == b"border") for axis, size in enumerate((width, height))]
    image = emit.reshape(node.inputs[0], (None, channels, height * width))
    seen = emit.reshape(dy, (None, channels, count))
    back, slopes = emit("Expand", emit.real(0), emit("Shape", image)), [emit.real(0), emit.real(0)]
    for corner in product((0, 1), repeat=2):
        weights, inside, index = _corner(emit, places, corner, width)
        flat = emit.reshape(index, (None, 1, count))
        everywhere = emit("Expand", flat, emit("Shape", seen))
        within = emit("Mul", seen, emit.reshape(inside, (None, 1, count)))
        if 0 in node.active:
            share = emit("Mul", within, emit.reshape(emit("Mul", *weights), (None, 1, count)))
            back = emit("ScatterElements", back, everywhere, share, axis=2, reduction="add")
        if 1 in node.active:
            pixel = emit("GatherElements", image, everywhere, axis=2)
            felt = sum_over(emit, emit("Mul", within, pixel), (None, channels, count), [1])
            felt = emit.reshape(felt, (None, *out))
            for axis in (0, 1):
                change = emit("Mul", felt, weights[1 - axis])
                slopes[axis] = emit("Add" if corner[axis] else "Sub", slopes[axis], change)
    gradients = {}
    if 0 in node.active:
        gradients[0] = emit.reshape(back, node.shape())
    if 1 in node.active:
        moved = [emit("Mul", slope, place.slope) for slope, place in zip(slopes, places, strict=True)]
        gradients[1] = emit("Concat", *[emit("Unsqueeze", m, emit.integers([3])) for m in moved], axis=3)
    return gradients


def _place(emit: Emitter, node: Node, axis: int, size: int, *, border: bool) -> Place:
    """Bring places from -1 to 1 to pixels; outside of a border they lie on it, and move nothing."""
    aligned = node.attribute("align_corners", 0)
    factor, shift = ((size - 1) / 2, (size - 1) / 2) if aligned else (size / 2, (size - 1) / 2)
    given = emit("Gather", node.inputs[1], emit.integers(axis), axis=3)
    place = emit("Add", emit("Mul", given, emit.real(factor)), emit.real(shift))
    slope = emit.real(factor)
    if border:
        low, high = emit.real(0), emit.real(size - 1)
        inside = emit("And", emit("GreaterOrEqual", place, low), emit("LessOrEqual", place, high))
        place, slope = emit("Clip", place, low, high), emit("Mul", emit.cast(inside), slope)
    below = emit("Floor", place)
    return Place(below, emit("Sub", place, below), size, slope)


def _corner(emit: Emitter, places: list[Place], corner: tuple[int, ...], width: int) -> tuple[list[str], str, str]:
    """Return the weights along both axes, 1 where the pixel is in the image and else 0, and its number."""
    weights, inside, numbers = [], [], []
    for place, upper in zip(places, corner, strict=True):
        weights.append(place.beyond if upper else emit("Sub", emit.real(1), place.beyond))
        pixel = emit("Add", place.below, emit.real(upper))
        low, high = emit.real(0), emit.real(place.size - 1)
        inside.append(emit("And", emit("GreaterOrEqual", pixel, low), emit("LessOrEqual", pixel, high)))
        numbers.append(emit("Clip", pixel, low, high))
    index = emit("Add", emit("Mul", numbers[1], emit.real(width)), numbers[0])
    return weights, emit.cast(emit("And", *inside)), emit("Cast", index, to=7)
