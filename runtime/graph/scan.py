"""Refuses graphs that refer to data outside their own bytes.

Given a graph as bytes, ONNX Runtime reads external data from the working directory; version 1.20 reads it from any path
and from its own memory (docs/adr/0025). So each graph is searched before an engine gets it. The search follows the few
fields of onnx.proto that lead to a tensor, without the onnx package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runtime.errors import BadModel
from runtime.graph.wire import DEEPEST, WORD, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OUTSIDE = (b"location", b"EPContext")
"""A graph that contains neither refers to no external data (the key of a location) and no compiled engine (a node)."""
EXTERNAL = 1
"""TensorProto.DataLocation.EXTERNAL"""


class Message(NamedTuple):
    """The fields of a message that are followed. `inside` maps field numbers to the messages that they contain."""

    inside: Mapping[int, str] = {}
    external_data: int | None = None
    data_location: int | None = None
    operator: int | None = None


MESSAGES: Mapping[str, Message] = {
    "ModelProto": Message({7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"}),
    "TrainingInfoProto": Message({1: "GraphProto", 2: "GraphProto"}),
    "FunctionProto": Message({7: "NodeProto", 11: "AttributeProto"}),
    "GraphProto": Message({1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"}),
    "NodeProto": Message({5: "AttributeProto"}, operator=4),
    "AttributeProto": Message(
        {5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto", 22: "SparseTensorProto",
         23: "SparseTensorProto"}
    ),
    "SparseTensorProto": Message({1: "TensorProto", 2: "TensorProto"}),
    "TensorProto": Message(external_data=13, data_location=14),
}  # fmt: skip
"""The parts of onnx.proto that lead to a tensor."""


def refuse_outside_data(where: str, graph: bytes) -> None:
    """Refuse an ONNX graph that refers to data or compiled engines outside its own bytes.

    Args:
        where: the graph's name in messages.
        graph: a serialised ModelProto.

    Raises:
        BadModel: it does, or is not an ONNX graph.

    """
    if not any(word in graph for word in OUTSIDE):
        return  # it cannot refer to anything outside
    try:
        for name in _references(memoryview(graph), "ModelProto", DEEPEST):
            raise BadModel(f"{where} refers to data outside the bundle: {name}", hint="embed all weights in the graph")
    except (IndexError, ValueError) as error:
        raise BadModel(f"{where} is no ONNX graph: {error}", hint="export it again") from None


def _references(data: memoryview, kind: str, depth: int) -> Iterator[str]:
    if not depth:
        raise ValueError("graphs nest too deeply")
    message = MESSAGES[kind]
    for field, value in fields_of(data):
        if isinstance(value, int):
            if field == message.data_location and value & WORD == EXTERNAL:
                yield "a tensor marked external"
        elif field in message.inside:
            yield from _references(value, message.inside[field], depth - 1)
        elif field == message.external_data:
            yield from _location(value)
        elif field == message.operator and bytes(value) == b"EPContext":
            yield "an EPContext node"


def _location(entry: memoryview) -> Iterator[str]:
    """Yield the path if a StringStringEntryProto (1 key, 2 value) of external data is a location, and not an offset."""
    texts = {field: bytes(value) for field, value in fields_of(entry) if not isinstance(value, int)}
    if texts.get(1) == b"location":
        yield ascii(texts.get(2, b"").decode(errors="replace"))
