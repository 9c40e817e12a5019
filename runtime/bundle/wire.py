"""Protocol buffers as they are written: the fields of a message, for those who look into a graph without onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers; groups (3, 4) don't occur in onnx.proto."""
SIZES = {FIXED64: 8, FIXED32: 4}
DEEPEST = 100
"""Messages within messages: protocol buffers' own limit."""
WORD = 2**32 - 1
"""Tags and enumerations are 32 bits: parsers drop what is above."""


def fields_of(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes) of one message; what has a fixed size is passed over.

    Raises:
        ValueError: it is no such message.
        IndexError: it ends within a number.

    """
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag > WORD:
            raise ValueError("a tag is too long")
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(data, place)
            yield field, value
            continue
        size, place = (SIZES[wire], place) if wire in SIZES else _length(data, place, wire)
        if place + size > len(data):
            raise ValueError("a field is longer than its message")
        if wire == BYTES:
            yield field, data[place : place + size]
        place += size


def _length(data: memoryview, place: int, wire: int) -> tuple[int, int]:
    if wire != BYTES:
        raise ValueError(f"unknown wire type {wire}")
    return _varint(data, place)


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")
