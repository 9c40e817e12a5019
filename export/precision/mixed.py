"""int8 graphs in which named layers stay in float16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import ModelProto, NodeProto

from export.graph.passes import drop_unread, prepare
from export.precision.half import WEIGHTED, in_float16
from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from export.graph.passes import Prepared

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "HardSigmoid", "Sigmoid", "Tanh")
"""What goes with the layer before it, so that an engine can still run both as one."""


def layers(forward: Prepared) -> dict[str, str]:
    """Return the layers that int8 is for: by the name of their weights, the value that each makes.

    Args:
        forward: in float32.

    """
    stored = {tensor.name for tensor in forward.model.graph.initializer}
    made: dict[str, str] = {}
    for node in forward.model.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in stored:
            name = node.input[1].removesuffix(".weight")
            made[name if name not in made else node.output[0]] = node.output[0]
    return made


def keep(quantized: Prepared, single: Prepared, names: Collection[str]) -> Prepared:
    """Return the int8 graph with these layers in float16, and the activations right behind them.

    Args:
        quantized: what `export.precision.calibrate.in_int8` made of `single`.
        single: the graph in float32.
        names: keys of `layers(single)`.

    Raises:
        BadModel: there is no such layer.

    """
    known = layers(single)
    for name in names:
        if name not in known:
            raise BadModel(f"the model has no layer {name!r} to keep in fp16", hint=f"its layers: {', '.join(known)}")
    values = {known[name] for name in names}
    return in_float16(unquantized(quantized, single, values), {*values, *_behind(single.model, values)})


def unquantized(quantized: Prepared, single: Prepared, values: Collection[str]) -> Prepared:
    """Return the int8 graph in which the nodes that make these values read and weigh what they did in `single`."""
    model = ModelProto()
    model.CopyFrom(quantized.model)
    originals = {node.output[0]: node for node in single.model.graph.node}
    read = set()
    for node in model.graph.node:
        if node.output[0] in values:
            node.CopyFrom(originals[node.output[0]])
            read.update(node.input)
    present = {tensor.name for tensor in model.graph.initializer}
    wanted = read - present
    model.graph.initializer.extend(tensor for tensor in single.model.graph.initializer if tensor.name in wanted)
    drop_unread(model)
    return prepare(model)


def _behind(model: ModelProto, values: Collection[str]) -> Iterator[str]:
    """Yield what the activations right behind these values make, where nothing else reads those."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for value in values:
        reading = readers.get(value, [])
        if len(reading) == 1 and reading[0].op_type in ACTIVATIONS:
            yield reading[0].output[0]
