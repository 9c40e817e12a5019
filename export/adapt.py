"""From anyone's ONNX classifier to edgeproof's interface: `input` [batch, C, H, W] in [0, 1] to `logits` [batch, K]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper, version_converter

from export.batch import free_batch
from export.passes import INPUT, OPSETS, OUTPUT, opset_of
from runtime.errors import BadData, BadModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from export.batch import Freeing
    from runtime.images import Layout

    Rows = np.ndarray[Any, np.dtype[Any]]

OLDEST = 9
"""The first opset whose batch normalisation and pooling mean what they mean today."""
REAL: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}
MOVING = ("Identity", "Flatten", "Reshape", "Squeeze", "Dropout", "Cast")
"""Operations after a softmax that change no number."""


@dataclass(frozen=True)
class Interface:
    """How the model itself wants to be asked.

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
        cut: what was cut off at its end, a key of CUTS, or None.
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
        original: as `export.model_file.read_model` returns it.
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
    model = _raised(original, changes)
    interface = _interface(model, image, layout)
    channels, height, width = image
    sizes = (channels, height, width) if interface.layout == "nchw" else (height, width, channels)
    graph = free_batch(model, {interface.name: (interface.batch or 1, *sizes)})
    if interface.batch is not None:
        changes.append(f"a batch of {interface.batch} made dynamic")
    output, classes = _output(model, graph, changes)
    interface = Interface(interface.name, output, interface.batch, interface.layout, interface.kind)
    logits, cut = _before_softmax(graph, output, classes)
    if cut:
        changes.append(f"the {cut} at its end cut off: it hides the gradient and changes no prediction")
    _rewired(model, graph, interface, logits, (image, classes), (mean, std), changes)
    return Adapted(model, interface, cut, tuple(changes))


def in_float32(model: ModelProto) -> ModelProto:
    """Return a copy that computes in float32 whatever was computed in float16 or float64."""
    copy = ModelProto()
    copy.CopyFrom(model)
    other = {TensorProto.FLOAT16, TensorProto.DOUBLE}
    for tensor in copy.graph.initializer:
        if tensor.data_type in other:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in other:
                attribute.i = TensorProto.FLOAT
    del copy.graph.value_info[:]
    return copy


def computes_in(model: ModelProto) -> str:
    """Return the floating-point type of a model's weights: the narrowest of them."""
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 0}
    return next((REAL[kind] for kind in (TensorProto.FLOAT16, TensorProto.FLOAT) if kind in kinds), "float64")


def _raised(original: ModelProto, changes: list[str]) -> ModelProto:
    """Return a copy with an opset that edgeproof works with."""
    opset = opset_of(original)
    model = ModelProto()
    model.CopyFrom(original)
    if opset in OPSETS:
        model.ir_version = max(model.ir_version, 8)
        return model
    target = OPSETS[0] if opset < OPSETS[0] else OPSETS[-1]
    hint = f"export it again with opset {OPSETS[0]} to {OPSETS[-1]}, which TensorRT 10 parses too"
    if opset < OLDEST:
        raise BadModel(f"the model has opset {opset}; edgeproof takes {OLDEST} and later", hint=hint)
    try:
        converted: ModelProto = version_converter.convert_version(model, target)
    except Exception as error:  # the converter's own errors share no base but this one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadModel(f"the model's opset {opset} cannot be brought to {target}: {reason}", hint=hint) from None
    converted.ir_version = max(model.ir_version, 8)
    changes.append(f"opset {opset} brought to {target}")
    return converted


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


def _layout(sizes: tuple[int | None, ...], image: tuple[int, int, int], asked: Layout | None) -> Layout:
    """Return the layout in which the images fit the model; where both do, the one asked for, or channels first.

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
    return asked if asked in fitting else fitting[0]


def _output(model: ModelProto, graph: Freeing, changes: list[str]) -> tuple[str, int]:
    """Return the output that has a number for each class, and how many those are."""
    fitting = {}
    for info in model.graph.output:
        sizes, axis = graph.narrow(info.name), graph.batch_axis(info.name)
        if sizes and axis == 0 and max(sizes[1:], default=0) == math.prod(sizes[1:]) and graph.kind(info.name) in REAL:
            fitting[info.name] = max(sizes[1:])
    names = ", ".join(info.name for info in model.graph.output)
    if len(fitting) != 1:
        what = "; ".join(f"{info.name}: {list(graph.narrow(info.name) or ['?'])}" for info in model.graph.output)
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


def _before_softmax(graph: Freeing, output: str, classes: int) -> tuple[str, str | None]:
    """Return the value that a softmax, log-softmax or sigmoid at the very end was made of, and which it was.

    Sound because each keeps the order of the classes. A softmax must be over the classes and nothing else.
    """
    makers = {name: node for node in graph.nodes for name in node.output}
    name, maker = output, makers.get(output)
    while maker is not None and maker.op_type in MOVING:
        name, maker = maker.input[0], makers.get(maker.input[0])
    if maker is None or maker.domain:
        return output, None
    if maker.op_type == "Sigmoid":
        return maker.input[0], "Sigmoid"
    if maker.op_type in ("Softmax", "LogSoftmax"):
        axis = next((helper.get_attribute_value(a) for a in maker.attribute if a.name == "axis"), -1)
        return (maker.input[0], maker.op_type) if _over_classes(graph, name, axis, classes) else (output, None)
    if maker.op_type == "Div":
        return _before_written_softmax(graph, makers, maker, classes) or (output, None)
    return output, None


def _before_written_softmax(graph: Freeing, makers: Any, divide: Any, classes: int) -> tuple[str, str] | None:
    """Recognise exp(z) / sum(exp(z)), with or without a maximum taken off z."""
    exponential, total = (makers.get(name) for name in divide.input)
    if exponential is None or total is None or (exponential.op_type, total.op_type) != ("Exp", "ReduceSum"):
        return None
    axes = graph.value(total.input[1]) if len(total.input) > 1 else None
    if total.input[0] != exponential.output[0] or axes is None or axes.size != 1:
        return None
    sound = _over_classes(graph, divide.output[0], int(axes.item()), classes)
    return (exponential.input[0], "Softmax") if sound else None


def _over_classes(graph: Freeing, name: str, axis: int, classes: int) -> bool:
    sizes = graph.narrow(name)
    return sizes is not None and sizes[axis] == classes and math.prod(sizes) == sizes[0] * classes


def _rewired(
    model: ModelProto,
    graph: Freeing,
    interface: Interface,
    logits: str,
    shape: tuple[tuple[int, int, int], int],
    normalisation: tuple[Sequence[float], Sequence[float]],
    changes: list[str],
) -> None:
    """Put edgeproof's input before the graph, and its output behind what the softmax was made of."""
    image, classes = shape
    inner = _Names(model)
    body = list(model.graph.node)
    front, entry = _front(interface, normalisation, inner, changes)
    back = [helper.make_node("Flatten", [inner(logits)], ["flat/logits"], axis=1)]
    back.append(helper.make_node("Cast", ["flat/logits"], [OUTPUT], to=TensorProto.FLOAT))
    for node in body:
        node.input[:] = [entry if name == interface.name else inner(name) for name in node.input]
        node.output[:] = [inner(name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = inner(tensor.name)
    if graph.kind(logits) == TensorProto.FLOAT:
        back[-1] = helper.make_node("Identity", ["flat/logits"], [OUTPUT])
    sizes = graph.narrow(logits)
    if sizes is not None and len(sizes) == 2:
        back = [helper.make_node(back[-1].op_type, [inner(logits)], [OUTPUT], **_attributes(back[-1]))]
    kept = _needed([*front, *body, *back])
    del model.graph.node[:], model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(inner.constants)
    model.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *image]))
    model.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class _Names:
    """Names of the inner values, none of them called like the interface; and constants of our own."""

    def __init__(self, model: ModelProto) -> None:
        self.taken = {name for node in model.graph.node for name in [*node.input, *node.output]}
        self.constants: list[TensorProto] = []

    def __call__(self, name: str) -> str:
        while name in (INPUT, OUTPUT, "flat/logits") or name.startswith("front/"):
            name = f"inner/{name}"
        return name

    def constant(self, value: Any) -> str:
        name = f"front/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name


def _front(
    interface: Interface, normalisation: tuple[Sequence[float], Sequence[float]], inner: _Names, changes: list[str]
) -> tuple[list[Any], str]:
    """Return the nodes from `input` to what the model takes, and the name of that."""
    mean, std = (np.asarray(values, np.float32).reshape(-1, 1, 1) for values in normalisation)
    nodes, entry = [], INPUT

    def add(op: str, *more: str, **attributes: Any) -> None:
        nonlocal entry
        nodes.append(helper.make_node(op, [entry, *more], [f"front/{op.lower()}"], **attributes))
        entry = nodes[-1].output[0]

    if mean.size:
        add("Sub", inner.constant(mean))
    if std.size:
        add("Div", inner.constant(std))
    if nodes:
        changes.append("the normalisation put before it")
    if interface.layout == "nhwc":
        add("Transpose", perm=[0, 2, 3, 1])
        changes.append("channels moved last for it, as it takes them")
    if interface.kind != TensorProto.FLOAT:
        add("Cast", to=interface.kind)
        changes.append(f"images cast to {REAL[interface.kind]} for it")
    return nodes, entry


def _needed(nodes: list[Any]) -> list[Any]:
    """Return the nodes that `logits` depends on, in order."""
    wanted, kept = {OUTPUT}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _softmax(z: Rows) -> Rows:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


CUTS: dict[str, Callable[[Rows], Rows]] = {
    "LogSoftmax": lambda z: np.log(_softmax(z)),
    "Sigmoid": lambda z: np.asarray(1 / (1 + np.exp(-z))),
    "Softmax": _softmax,
}
"""What may be cut off the end of a model, and how its own output follows from the logits."""
