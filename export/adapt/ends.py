"""Attaches edgeproof's input and output to a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.passes import drop_unread
from export.graph.ties import keep_ties
from runtime.session import INPUT, LOGITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INNER, FRONT, BACK = "inner/", "front/", "back/"


@dataclass(frozen=True)
class Step:
    """One operation on the way in or out, with constants as its further inputs."""

    op: str
    constants: tuple[np.ndarray[Any, np.dtype[Any]], ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tied:
    """The model's own answer, a sigmoid; the logits must keep its ties (`export.graph.ties`).

    Args:
        output: the value.
        kind: what it is rounded to, as 'float32'.
        steps: what brings it to [batch, K] float32.

    """

    output: str
    kind: str
    steps: Sequence[Step]


def attach_input(model: ModelProto, own: str, image: tuple[int, int, int], steps: Sequence[Step]) -> None:
    """Replace a model's input `own`, in place, by `input` [batch, C, H, W] float32, which goes through `steps`.

    Every other value or node called like an end of the graph is renamed: `export.graph.ties` knows its own by name.
    """
    graph = model.graph
    nodes = _chain(graph, INPUT, steps, FRONT)
    entry = nodes[-1].output[0] if nodes else INPUT
    for node in graph.node:
        node.input[:] = [entry if name == own else inner(name) for name in node.input]
        node.output[:] = [inner(name) for name in node.output]
        node.name = inner(node.name)
    for tensor in graph.initializer:
        if not tensor.name.startswith(FRONT):
            tensor.name = inner(tensor.name)
    body = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *body])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *image]))


def attach_output(model: ModelProto, own: str, classes: int, steps: Sequence[Step], tied: Tied | None = None) -> None:
    """Replace a model's outputs, in place, by `logits` [batch, K] float32, made by `steps` of its value `own`.

    Nodes that `logits` does not depend on are dropped. `attach_input` comes first.

    Args:
        model: the classifier.
        own: its value.
        classes: K.
        steps: on the way out.
        tied: where the logits have to keep the ties of what was cut off.

    """
    graph = model.graph
    nodes = _chain(graph, inner(own), steps or [Step("Identity")], BACK)
    if tied:
        answered = _chain(graph, inner(tied.output), tied.steps or [Step("Identity")], f"{BACK}own/")
        ending = keep_ties(nodes[-1].output[0], answered[-1].output[0], np.dtype(tied.kind))
        nodes = [*nodes, *answered, *ending.nodes]
        graph.initializer.extend(ending.initializers)
    nodes[-1].output[0] = LOGITS
    graph.node.extend(nodes)
    drop_unread(model)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", classes]))


def inner(name: str) -> str:
    """Return the name of a value inside the graph; it never equals the name of an input or output."""
    return INNER + name if name in (INPUT, LOGITS) or name.startswith((INNER, FRONT, BACK)) else name


def _chain(graph: Any, start: str, steps: Sequence[Step], prefix: str) -> list[NodeProto]:
    nodes = []
    for index, step in enumerate(steps):
        names = [f"{prefix}{index}/{number}" for number in range(len(step.constants))]
        graph.initializer.extend(numpy_helper.from_array(c, n) for c, n in zip(step.constants, names, strict=True))
        nodes.append(helper.make_node(step.op, [start, *names], [f"{prefix}{index}"], **step.attributes))
        start = nodes[-1].output[0]
    return nodes
