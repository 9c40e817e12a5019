"""The wire format of protocol buffers, to read an ONNX file without the onnx package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers; groups (3, 4) don't occur in onnx.proto."""
SIZES = {FIXED64: 8, FIXED32: 4}
DEEPEST = 100
"""The deepest nesting of messages, which is protocol buffers' own limit."""
WORD = 2**32 - 1
"""A mask of 32 bits, for tags and enumerations; parsers drop the higher bits."""


def fields_of(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes) for the fields of one message, without those of fixed size.

    Raises:
        ValueError: the bytes are not a message.
        IndexError: the bytes end within a number.

    """
    offset = 0
    while offset < len(data):
        tag, offset = _varint(data, offset)
        if tag > WORD:
            raise ValueError("a tag is too long")
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, offset = _varint(data, offset)
            yield field, value
            continue
        size, offset = (SIZES[wire], offset) if wire in SIZES else _length(data, offset, wire)
        if offset + size > len(data):
            raise ValueError("a field is longer than its message")
        if wire == BYTES:
            yield field, data[offset : offset + size]
        offset += size


def packed(data: memoryview) -> list[int]:
    """Return the varints of a packed repeated field; raises as `fields_of` does."""
    numbers, offset = [], 0
    while offset < len(data):
        value, offset = _varint(data, offset)
        numbers.append(value)
    return numbers


def _length(data: memoryview, offset: int, wire: int) -> tuple[int, int]:
    if wire != BYTES:
        raise ValueError(f"unknown wire type {wire}")
    return _varint(data, offset)


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("a number is too long")
