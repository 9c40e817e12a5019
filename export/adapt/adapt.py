"""Adapts any ONNX classifier to edgeproof's interface: `input` [batch, C, H, W] in [0, 1] to `logits` [batch, K]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto

from export.adapt.batch import free_batch
from export.adapt.ends import Step, Tied, attach_input, attach_output
from export.adapt.interface import BYTES, TAKEN, Interface, interface_of
from export.adapt.opsets import raised
from export.adapt.output import output_of
from export.adapt.softmax import CUTS, OF_ONE_NUMBER, TYING, before_softmax
from export.adapt.unbatched import behind_batch, give_batch
from export.graph.floating import REAL
from export.graph.passes import to_bytes
from runtime.errors import BadData
from runtime.graph.facts import graph_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.adapt.batch_values import Values
    from runtime.images.image_set import Layout


@dataclass(frozen=True)
class Adapted:
    """A model with edgeproof's interface.

    Args:
        model: opset 18 to 20, `input` [batch, C, H, W] float32 to `logits` [batch, K] float32.
        interface: how the original model takes images.
        output: the name of the original output that was kept.
        cut: the activation that was cut off the end, a key of `export.adapt.softmax.CUTS`; None if there was none.
        changes: every change to the model, in words.

    """

    model: ModelProto
    interface: Interface
    output: str
    cut: str | None
    changes: tuple[str, ...]


def adapt(
    original: ModelProto,
    image: tuple[int, int, int],
    *,
    layout: Layout | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    bgr: bool = False,
    output: str | None = None,
) -> Adapted:
    """Return a copy of a classifier with edgeproof's interface.

    Args:
        original: as `export.adapt.model_file.read_model` returns it.
        image: (C, H, W) of the images that it is to be judged on.
        layout: the place of the channels in the model's input, if the shape does not determine it.
        mean: subtracted from each channel before the model; empty if the model takes images in [0, 1].
        std: divides each channel after that; empty likewise.
        bgr: whether the model takes blue first.
        output: the name of the output that holds the logits, if the shapes do not determine it.

    Raises:
        BadModel: another number of inputs, outputs that do not tell, an opset that cannot be raised, or a graph that
            cannot be freed of its batch.
        BadData: the model takes images of another shape, of other channels, or bytes and no normalisation.

    """
    changes: list[str] = []
    model = raised(original, changes)
    interface = interface_of(model, image, layout)
    if interface.batch == 1 and len(interface.shape) == 2 and behind_batch(model, (1, *interface.shape)):
        interface = replace(interface, batch=0, shape=(1, *interface.shape))  # that 1 is the channel of a grey image
    inner = give_batch(model, interface.shape) if interface.batch == 0 else interface.shape
    graph = free_batch(model, {interface.name: (interface.batch or 1, *inner)})
    if interface.batch is not None:
        changes.append(
            f"a batch of {interface.batch} made dynamic" if interface.batch else "an axis for the batch added"
        )
    graph.refuse_unknown(info.name for info in model.graph.output)
    output, numbers = output_of(model, graph, output, changes)
    logits, cut = before_softmax(graph, output, numbers)
    if cut:
        changes.append(CUTS[cut].words)
    attach_input(model, interface.name, image, _front(interface, inner, image, mean, std, bgr, changes))
    tied = Tied(output, REAL[graph.kind(output)], _back(graph, output, cut)) if cut == TYING else None
    attach_output(model, logits, max(numbers, 2), _back(graph, logits, cut), tied)
    if graph_facts(to_bytes(model)).ranges_of_batch:
        changes.append("its quantisation takes its range from the whole batch: each image is run separately")
    return Adapted(model, interface, output, cut, tuple(changes))


def _front(
    interface: Interface,
    inner: tuple[int, ...],
    image: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    bgr: bool,
    changes: list[str],
) -> list[Step]:
    """Return the steps from images in [0, 1], channels first, to the model's own input [batch, *inner]."""
    steps = _pixels(interface, mean, std, changes)
    if bgr:
        if image[0] != 3:
            raise BadData(f"--bgr needs colour images, but these have {image[0]} channels", hint="leave it out")
        steps.append(Step("Gather", (np.asarray([2, 1, 0]),), {"axis": 1}))
        changes.append("channels reordered for it, blue first; mean and deviation are given red first")
    if interface.layout == "nhwc":
        steps.append(Step("Transpose", attributes={"perm": [0, 2, 3, 1]}))
        changes.append("channels moved last for it")
    if len(inner) != 3:
        steps.append(Step("Reshape", (np.asarray([0, *inner], np.int64),)))
        changes.append(f"images reshaped to {' x '.join(map(str, inner))} for it")
    if interface.kind not in (TensorProto.FLOAT, BYTES):
        steps.append(Step("Cast", attributes={"to": interface.kind}))
        changes.append(f"images cast to {TAKEN[interface.kind]} for it")
    return steps


def _pixels(interface: Interface, mean: Sequence[float], std: Sequence[float], changes: list[str]) -> list[Step]:
    """Return the steps from pixels in [0, 1] to what the model takes: normalised numbers, or bytes."""
    if interface.kind == BYTES:
        if len(mean) or len(std):
            raise BadData("the model takes bytes and normalises them itself", hint="leave --mean and --std out")
        changes.append("images converted to bytes for it: each pixel is rounded to the nearest")
        return [Step("Mul", (np.asarray(255, np.float32),)), Step("Round"), Step("Cast", attributes={"to": BYTES})]
    steps = [
        Step(op, (np.asarray(values, np.float32).reshape(-1, 1, 1),))
        for op, values in (("Sub", mean), ("Div", std))
        if len(values)
    ]
    if steps:
        changes.append("the normalisation added before it")
    return steps


def _back(graph: Values, logits: str, cut: str | None) -> list[Step]:
    """Return the steps from the model's own logits to float32 [batch, K]."""
    sizes, steps = graph.sizes(logits) or (), []
    if len(sizes) == 1:
        steps.append(Step("Unsqueeze", (np.asarray([1]),)))
    elif len(sizes) != 2:
        steps.append(Step("Flatten", attributes={"axis": 1}))
    if graph.kind(logits) != TensorProto.FLOAT:
        steps.append(Step("Cast", attributes={"to": TensorProto.FLOAT}))
    if cut in OF_ONE_NUMBER:
        steps.append(Step("Mul", (np.asarray([OF_ONE_NUMBER[cut]], np.float32),)))
    return steps
