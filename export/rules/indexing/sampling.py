"""GridSample: pixels read at places between them, each with a weight that the place moves."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from export.graph.broadcast import sum_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.graph.graph import Emitter, Gradients, Node, Shape

CUBIC = -0.75
"""The slope of the cubic weight at a distance of 1 (Keys 1981), as ONNX has it."""


class Tap(NamedTuple):
    """A pixel that is read along one axis, each value of the shape [B, 1, h w] or [].

    Args:
        pixel: its number; beyond the image too.
        weight: what it is multiplied by.
        slope: of the weight by the place, in pixels.

    """

    pixel: str
    weight: str
    slope: str


class Corner(NamedTuple):
    """A pixel that is read: its number in the image [B, C, h w], its weight, and the slopes of that along x and y."""

    number: str
    weight: str
    slopes: tuple[str, str]


def grid_sample(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give each pixel about a place its share, and the place the slope between them.

    Images [B, C, H, W], places [B, h, w, 2] as (x, y) from -1 to 1. What is beyond the image is decided pixel by pixel,
    by ONNX's `padding_mode`: a border or a mirror bends the weights' sum just as the place itself.
    """
    taps_at = TAPS.get(node.attribute("mode", b"linear"))
    if taps_at is None or len(node.shape()) != 4:
        raise node.refused(
            "only images of two dimensions are differentiated, sampled at the nearest pixel, linearly or cubically"
        )
    if taps_at is _nearest and 1 in node.active:
        raise node.refused("its sampling points depend on the image, and the nearest pixel has no slope")
    channels, height, width = node.sizes(node.shape())
    out = node.sizes(node.output_shape, 2)
    count = out[0] * out[1]
    image = emit.reshape(node.inputs[0], (None, channels, height * width))
    seen = emit.reshape(dy, (None, channels, count))
    sizes = (width, height)
    taps = [taps_at(emit, _place(emit, node, axis, size, count)) for axis, size in enumerate(sizes)]
    corners = [_corner(emit, node, pair, sizes, seen) for pair in product(*taps)]
    gradients = {}
    if 0 in node.active:
        gradients[0] = emit.reshape(_shared(emit, image, seen, corners), node.shape())
    if 1 in node.active:
        moved = _moved(emit, image, seen, corners, (None, channels, count))
        scaled = [emit("Mul", m, emit.real(_factor(node, size))) for m, size in zip(moved, sizes, strict=True)]
        gradients[1] = emit("Concat", *[emit.reshape(s, (None, *out, 1)) for s in scaled], axis=3)
    return gradients


def _shared(emit: Emitter, image: str, seen: str, corners: list[Corner]) -> str:
    """Add to each pixel [B, C, H W] its share of the gradients [B, C, h w] of all that read it."""
    back = emit("Expand", emit.real(0), emit("Shape", image))
    for corner in corners:
        share = emit("Mul", seen, corner.weight)
        back = emit("ScatterElements", back, corner.number, share, axis=2, reduction="add")
    return back


def _moved(emit: Emitter, image: str, seen: str, corners: list[Corner], shape: Shape) -> list[str]:
    """Return the gradients of the places [B, 1, h w], in pixels along x and y."""
    moved = [emit.real(0), emit.real(0)]
    for corner in corners:
        pixel = emit("GatherElements", image, corner.number, axis=2)
        felt = sum_over(emit, emit("Mul", seen, pixel), shape, [1])
        moved = [emit("Add", m, emit("Mul", felt, s)) for m, s in zip(moved, corner.slopes, strict=True)]
    return moved


def _factor(node: Node, size: int) -> float:
    """Return how many pixels a place moves by 1."""
    return (size - 1) / 2 if node.attribute("align_corners", 0) else size / 2


def _place(emit: Emitter, node: Node, axis: int, size: int, count: int) -> str:
    """Bring places from -1 to 1 along one axis to pixels [B, 1, h w]."""
    given = emit("Gather", node.inputs[1], emit.integers(axis), axis=3)
    flat = emit.reshape(given, (None, 1, count))
    return emit("Add", emit("Mul", flat, emit.real(_factor(node, size))), emit.real((size - 1) / 2))


def _nearest(emit: Emitter, place: str) -> list[Tap]:
    return [Tap(emit("Round", place), emit.real(1), emit.real(0))]


def _linear(emit: Emitter, place: str) -> list[Tap]:
    below = emit("Floor", place)
    beyond = emit("Sub", place, below)
    return [
        Tap(below, emit("Sub", emit.real(1), beyond), emit.real(-1)),
        Tap(emit("Add", below, emit.real(1)), beyond, emit.real(1)),
    ]


def _cubic(emit: Emitter, place: str) -> list[Tap]:
    """Weigh four pixels by Keys's polynomials of their distance d, below 1 and from 1 to 2."""
    a, below = CUBIC, emit("Floor", place)
    near, far = (a + 2, -a - 3, 0.0, 1.0), (a, -5 * a, 8 * a, -4 * a)
    taps = []
    for offset in (-1, 0, 1, 2):
        pixel = emit("Add", below, emit.real(offset))
        sign, polynomial = (1.0 if offset < 1 else -1.0), near if offset in (0, 1) else far
        distance = emit("Mul", emit("Sub", place, pixel), emit.real(sign))
        cubed, squared, once, _ = polynomial
        slope = _polynomial(emit, distance, (3 * sign * cubed, 2 * sign * squared, sign * once))
        taps.append(Tap(pixel, _polynomial(emit, distance, polynomial), slope))
    return taps


TAPS: dict[bytes, Callable[[Emitter, str], list[Tap]]] = {
    b"nearest": _nearest,
    b"linear": _linear,
    b"bilinear": _linear,
    b"cubic": _cubic,
    b"bicubic": _cubic,
}
"""What is read along an axis, by ONNX's `mode`."""


def _polynomial(emit: Emitter, x: str, coefficients: tuple[float, ...]) -> str:
    """Evaluate a polynomial, the highest power first, by Horner's rule."""
    total = emit.real(coefficients[0])
    for coefficient in coefficients[1:]:
        total = emit("Add", emit("Mul", total, x), emit.real(coefficient))
    return total


def _corner(emit: Emitter, node: Node, taps: tuple[Tap, ...], sizes: tuple[int, int], seen: str) -> Corner:
    """Return the pixel where two taps cross; one beyond an image with zeros around it counts for nothing."""
    x, y = taps
    numbers = [emit("Cast", _inside(emit, node, tap.pixel, size), to=7) for tap, size in zip(taps, sizes, strict=True)]
    number = emit("Add", emit("Mul", numbers[1], emit.integers(sizes[0])), numbers[0])
    shares = [emit("Mul", x.weight, y.weight), emit("Mul", x.slope, y.weight), emit("Mul", x.weight, y.slope)]
    if node.attribute("padding_mode", b"zeros") == b"zeros":
        known = [_is_inside(emit, tap.pixel, size) for tap, size in zip(taps, sizes, strict=True)]
        there = emit.cast(emit("And", *known))
        shares = [emit("Mul", share, there) for share in shares]
    return Corner(emit("Expand", number, emit("Shape", seen)), shares[0], (shares[1], shares[2]))


def _is_inside(emit: Emitter, pixel: str, size: int) -> str:
    return emit("And", emit("GreaterOrEqual", pixel, emit.real(0)), emit("LessOrEqual", pixel, emit.real(size - 1)))


def _inside(emit: Emitter, node: Node, pixel: str, size: int) -> str:
    """Return the number of the pixel of the image that stands for one beyond it: its mirror, or the nearest."""
    if node.attribute("padding_mode", b"zeros") == b"reflection":
        aligned = node.attribute("align_corners", 0)
        last = size - 1 if aligned else size - 0.5  # the mirror, in the last pixel or at its edge
        pixel = _mirrored(emit, pixel, 0.0 if aligned else -0.5, last)
    return emit("Clip", pixel, emit.real(0), emit.real(size - 1))


def _mirrored(emit: Emitter, pixel: str, first: float, last: float) -> str:
    """Mirror at `first` and `last` as often as it takes: last - |(x - first) mod 2 (last - first) - (last - first)|."""
    way = last - first
    if way == 0:
        return pixel
    from_first = emit("Sub", pixel, emit.real(first))
    rounds = emit("Floor", emit("Div", from_first, emit.real(2 * way)))
    within = emit("Sub", from_first, emit("Mul", rounds, emit.real(2 * way)))
    return emit("Sub", emit.real(last), emit("Abs", emit("Sub", within, emit.real(way))))
