"""How a model takes images, read from the shape and type of its input; an ambiguous input is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from onnx import ModelProto, TensorProto, ValueInfoProto

from export.graph.floating import REAL
from runtime.errors import BadData, BadModel, Page

if TYPE_CHECKING:
    from runtime.images.image_set import Layout

BYTES: int = TensorProto.UINT8
"""The element type of models that take images as they are stored."""
TAKEN = {**REAL, BYTES: "uint8"}
"""Element types that a model may take its images in."""

Dims = tuple[int | None, ...]
"""Sizes of a value; None for each that is not fixed."""


@dataclass(frozen=True)
class Interface:
    """How the model itself takes images.

    Args:
        name: of its input.
        batch: the only batch it takes; None for any; 0 where it takes one image without an axis for the batch.
        layout: where its input has the channels.
        kind: element type of its input, a key of TAKEN.
        shape: of one image, as it takes it: (C, H, W), (H, W, C), (H, W), or (D,), a row of all numbers.

    """

    name: str
    batch: int | None
    layout: Layout
    kind: int
    shape: tuple[int, ...]


def interface_of(model: ModelProto, image: tuple[int, int, int], preferred: Layout | None) -> Interface:
    """Return how a model takes images of (C, H, W); `preferred` decides if the shape fits both layouts.

    Raises:
        BadModel: it has another number of inputs, or one of another type or form.
        BadData: it takes images of another shape, or a row of numbers whose order nothing tells.

    """
    info = image_input(model)
    name, kind, dims = info.name, info.type.tensor_type.elem_type, dims_of(info)
    if kind not in TAKEN:
        raise BadModel(
            f"the input {name!r} is {TensorProto.DataType.Name(kind).lower()}: neither floating-point nor uint8",
            hint="export the model without the step that makes these numbers; --std 1/255 feeds values up to 255",
            page=Page.ONNX,
        )
    if dims is None:
        dims = (None, None, None, None)
    if not 2 <= len(dims) <= 4:
        raise BadModel(
            f"the input {name!r} has {len(dims)} dimensions",
            hint="supported are [N, C, H, W], [N, H, W, C], [N, H, W] of grey images, [N, D], and one image without N",
            page=Page.ONNX,
        )
    batch, layout, shape = _form(dims, image, preferred)
    return Interface(name, batch, layout, kind, shape)


def image_input(model: ModelProto) -> ValueInfoProto:
    """Return the one input that is not a constant; raise `BadModel` if there is not exactly one."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in constants]
    if len(inputs) != 1:
        raise BadModel(
            f"the model has the inputs {', '.join(info.name for info in inputs) or 'none'}",
            hint="an image classifier has one input, the images",
            page=Page.ONNX,
        )
    (info,) = inputs
    return cast("ValueInfoProto", info)


def dims_of(info: ValueInfoProto) -> Dims | None:
    """Return the sizes of a value; None if the rank is unknown."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def _form(
    dims: Dims, image: tuple[int, int, int], preferred: Layout | None
) -> tuple[int | None, Layout, tuple[int, ...]]:
    """Return batch, layout and shape of `Interface`."""
    channels, height, width = image
    whole: dict[Layout, tuple[int, ...]] = {"nchw": image, "nhwc": (height, width, channels)}
    if len(dims) == 4:
        fitting = [layout for layout, shape in whole.items() if _fits(dims[1:], shape)]
        layout = _preferred(fitting, preferred, dims[1:], image)
        return dims[0], layout, whole[layout]
    if len(dims) == 2 and _fits(dims[1:], (math.prod(image),)):
        return dims[0], _order_in_a_row(channels, preferred), (math.prod(image),)
    if channels == 1 and len(dims) == 3 and _fits(dims[1:], (height, width)):
        return dims[0], "nchw", (height, width)
    if channels == 1 and dims == (height, width):
        return 0, "nchw", (height, width)
    fixed = [layout for layout, shape in whole.items() if dims == shape]
    layout = _preferred(fixed, preferred, dims if len(dims) == 3 and dims[0] is not None else dims[1:], image)
    return 0, layout, whole[layout]


def _fits(own: Dims, sizes: tuple[int, ...]) -> bool:
    return all(each in (None, size) for each, size in zip(own, sizes, strict=True))


def _preferred(fitting: list[Layout], preferred: Layout | None, own: Dims, image: tuple[int, int, int]) -> Layout:
    """Return the layout in which the images fit the model; where both do, the preferred one, or channels first."""
    if not fitting:
        channels, height, width = image
        wanted = " x ".join("?" if size is None else str(size) for size in own)
        raise BadData(
            f"the images are {channels} x {height} x {width} (channels first), but the model takes {wanted}",
            hint="resize the images to the model's size first; --size does it for the pictures of a folder"
            if {channels, None} & {own[0], own[-1]}
            else "give images with the model's number of channels: np.repeat(x, 3, axis=1) turns grey into colour",
        )
    return preferred if preferred in fitting else fitting[0]


def _order_in_a_row(channels: int, preferred: Layout | None) -> Layout:
    if channels > 1 and preferred is None:
        raise BadData(
            "the model takes each image as a row of numbers, without saying whether channels come first or last",
            hint="say with --layout nchw or nhwc in which order its training flattened them",
        )
    return preferred if preferred and channels > 1 else "nchw"
