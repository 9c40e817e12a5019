"""From anyone's ONNX classifier to edgeproof's interface: `input` [batch, C, H, W] in [0, 1] to `logits` [batch, K]."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto

from export.foreign.batch import free_batch
from export.foreign.ends import Step, attach_input, attach_output
from export.foreign.opsets import raised
from export.foreign.softmax import before_softmax
from export.graph.floating import REAL
from runtime.errors import BadData, BadModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.foreign.batch_values import Values
    from runtime.images.image_set import Layout


@dataclass(frozen=True)
class Interface:
    """How the model itself takes images and answers.

    Args:
        name: of its input.
        output: name of the output with a number for every class.
        batch: the only batch it takes, or None.
        layout: where its input has the channels.
        kind: element type of its input, a key of REAL.

    """

    name: str
    output: str
    batch: int | None
    layout: Layout
    kind: int


@dataclass(frozen=True)
class Adapted:
    """A model behind edgeproof's interface.

    Args:
        model: opset 18 to 20, `input` [batch, C, H, W] float32 to `logits` [batch, K] float32.
        interface: of the model as it was.
        cut: what was cut off at its end, a key of `export.foreign.softmax.CUTS`, or None.
        changes: everything that was done to it, in words.

    """

    model: ModelProto
    interface: Interface
    cut: str | None
    changes: tuple[str, ...]


def adapt(
    original: ModelProto,
    image: tuple[int, int, int],
    *,
    layout: Layout | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Adapted:
    """Return a copy of a classifier behind edgeproof's interface.

    Args:
        original: as `export.foreign.model_file.read_model` returns it.
        image: (C, H, W) of the images that it is to be judged on.
        layout: where its input has the channels, if its shape does not tell.
        mean: taken off each channel, and
        std: divided by; empty where the model wants images in [0, 1] as they are.

    Raises:
        BadModel: another number of inputs or outputs, an opset that cannot be raised, or a graph that cannot be
            freed of its batch.
        BadData: the model takes images of another shape.

    """
    changes: list[str] = []
    model = raised(original, changes)
    interface = _interface(model, image, layout)
    channels, height, width = image
    sizes = (channels, height, width) if interface.layout == "nchw" else (height, width, channels)
    graph = free_batch(model, {interface.name: (interface.batch or 1, *sizes)})
    if interface.batch is not None:
        changes.append(f"a batch of {interface.batch} made dynamic")
    graph.refuse_unknown(info.name for info in model.graph.output)
    output, classes = _output(model, graph, changes)
    interface = replace(interface, output=output)
    logits, cut = before_softmax(graph, output, classes)
    if cut:
        changes.append(f"the {cut} at its end cut off: it hides the gradient and keeps the order of the classes")
    attach_input(model, interface.name, image, _front(interface, mean, std, changes))
    attach_output(model, logits, classes, _back(graph, logits))
    return Adapted(model, interface, cut, tuple(changes))


def _interface(model: ModelProto, image: tuple[int, int, int], layout: Layout | None) -> Interface:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in constants]
    if len(inputs) != 1:
        raise BadModel(
            f"the model has the inputs {', '.join(info.name for info in inputs) or 'none'}",
            hint="an image classifier has one, the images",
        )
    name, kind = inputs[0].name, inputs[0].type.tensor_type.elem_type
    if kind not in REAL:
        raise BadModel(
            f"the input {name!r} is {TensorProto.DataType.Name(kind).lower()}, not floating-point",
            hint="export the model without the conversion from bytes; --std 1/255 feeds values up to 255",
        )
    dims = _dims(inputs[0])
    if dims is not None and len(dims) != 4:
        raise BadModel(f"the input {name!r} has {len(dims)} dimensions", hint="images have a batch axis and three more")
    batch, *sizes = dims or (None, None, None, None)
    return Interface(name, "", batch, _layout(tuple(sizes), image, layout), kind)


def _dims(info: ValueInfoProto) -> tuple[int | None, ...] | None:
    """Return the sizes of a value, None for each that is not fixed; None where not even their number is known."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def _layout(sizes: tuple[int | None, ...], image: tuple[int, int, int], preferred: Layout | None) -> Layout:
    """Return the layout in which the images fit the model; where both do, the preferred one, or channels first.

    Raises:
        BadData: neither does.

    """
    channels, height, width = image
    shapes: dict[Layout, tuple[int, ...]] = {"nchw": image, "nhwc": (height, width, channels)}
    fitting = [
        layout
        for layout, shape in shapes.items()
        if all(own in (None, size) for own, size in zip(sizes, shape, strict=True))
    ]
    if not fitting:
        wanted = " x ".join("?" if size is None else str(size) for size in sizes)
        raise BadData(
            f"the images are {channels} x {height} x {width} (channels first), the model takes {wanted}",
            hint="bring the images to the model's size first: edgeproof does not resize",
        )
    return preferred if preferred in fitting else fitting[0]


def _output(model: ModelProto, graph: Values, changes: list[str]) -> tuple[str, int]:
    """Return the output that has a number for each class, and how many those are."""
    fitting = {}
    for info in model.graph.output:
        sizes, axis = graph.sizes(info.name), graph.batch_axis(info.name)
        if sizes and axis == 0 and max(sizes[1:], default=0) == math.prod(sizes[1:]) and graph.kind(info.name) in REAL:
            fitting[info.name] = max(sizes[1:])
    names = ", ".join(info.name for info in model.graph.output)
    if len(fitting) != 1:
        what = "; ".join(f"{info.name}: {list(graph.sizes(info.name) or ['?'])}" for info in model.graph.output)
        raise BadModel(
            f"none of the outputs, or more than one, has a number for each class ({what})",
            hint="leave one output, [batch, classes], and a batch axis that nothing inside removes",
        )
    ((output, classes),) = fitting.items()
    if classes < 2:
        raise BadModel(f"the output {output!r} has one number: an attack needs two classes", hint="give it two logits")
    if len(model.graph.output) > 1:
        changes.append(f"of the outputs {names} only {output} kept")
    return output, classes


def _front(interface: Interface, mean: Sequence[float], std: Sequence[float], changes: list[str]) -> list[Step]:
    """Return what stands between images in [0, 1], channels first, and the model's own input."""
    steps = [
        Step(op, (np.asarray(values, np.float32).reshape(-1, 1, 1),))
        for op, values in (("Sub", mean), ("Div", std))
        if len(values)
    ]
    if steps:
        changes.append("the normalisation put before it")
    if interface.layout == "nhwc":
        steps.append(Step("Transpose", attributes={"perm": [0, 2, 3, 1]}))
        changes.append("channels moved last for it, as it takes them")
    if interface.kind != TensorProto.FLOAT:
        steps.append(Step("Cast", attributes={"to": interface.kind}))
        changes.append(f"images cast to {REAL[interface.kind]} for it")
    return steps


def _back(graph: Values, logits: str) -> list[Step]:
    """Return what stands between the model's own logits and float32 [batch, K]."""
    steps = [] if len(graph.sizes(logits) or ()) == 2 else [Step("Flatten", attributes={"axis": 1})]
    if graph.kind(logits) != TensorProto.FLOAT:
        steps.append(Step("Cast", attributes={"to": TensorProto.FLOAT}))
    return steps
