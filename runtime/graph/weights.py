"""Counts the parameters of an ONNX graph, without the onnx package."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from runtime.errors import BadModel
from runtime.graph.facts import NUMBERS
from runtime.graph.wire import fields_of, packed

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_SHAPES = 7
"""TensorProto.DataType.INT64: shapes and axes, which are no weights."""


def count_weights(graph: bytes) -> int:
    """Return the number of elements in all initializers of an ONNX graph, except int64 ones, which are shapes.

    Raises:
        BadModel: the bytes are not an ONNX graph.

    """
    model, of = NUMBERS["ModelProto"], NUMBERS["GraphProto"]
    try:
        return sum(
            _elements(tensor)
            for body in _messages(memoryview(graph), model["graph"])
            for tensor in _messages(body, of["initializer"])
        )
    except (IndexError, ValueError) as error:
        raise BadModel(f"this is no ONNX graph: {error}", hint="export it again") from None


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for field, value in fields_of(data) if field == wanted and not isinstance(value, int))


def _elements(tensor: memoryview) -> int:
    of, lengths, kind = NUMBERS["TensorProto"], [], None
    for field, value in fields_of(tensor):
        if field == of["dims"]:
            lengths += [value] if isinstance(value, int) else packed(value)
        elif field == of["data_type"]:
            kind = value
    return 0 if kind == OF_SHAPES else prod(lengths)
