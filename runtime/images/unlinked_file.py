"""Copies of files, made as they are checked: in memory, or on disk where they are large."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from runtime.errors import MissingEnvironment

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LARGE = 2**21
"""Bytes from which something stays on disk."""
BLOCK = 2**20
"""Bytes that are copied at once."""


@dataclass(frozen=True)
class Copy:
    """The bytes that a file held when it was read; what was checked is what is used, whatever becomes of the file.

    Two are equal if their bytes are.

    Args:
        sha256: of the bytes, in hexadecimal.
        size: how many there are.
        held: the bytes, or the descriptor of a file that nobody else has, closed with this copy.

    """

    sha256: str
    size: int
    held: bytes | int = field(repr=False, compare=False)

    def open(self) -> BinaryIO:
        """Return the bytes as a file, at their beginning; one at a time: they share one position."""
        if isinstance(self.held, bytes):
            return io.BytesIO(self.held)
        file = os.fdopen(os.dup(self.held), "rb")
        file.seek(0)
        return file

    def read(self) -> bytes:
        """Return all bytes, in memory."""
        with self.open() as file:
            return file.read()


def copied(source: BinaryIO, at_most: int, *, large: bool) -> Copy:
    """Read a file in blocks to its end, but not more than a byte beyond `at_most`; keep it on disk if `large`.

    Raises:
        MissingEnvironment: see `unnamed_file`.

    """
    digest, size = hashlib.sha256(), 0
    with unnamed_file() if large else io.BytesIO() as file:
        while block := source.read(min(BLOCK, at_most + 1 - size)):
            digest.update(block)
            size += file.write(block)
        if isinstance(file, io.BytesIO):
            return Copy(digest.hexdigest(), size, file.getvalue())
        file.flush()
        descriptor = os.dup(file.fileno())
    copy = Copy(digest.hexdigest(), size, descriptor)
    weakref.finalize(copy, os.close, descriptor)
    return copy


def unnamed_file() -> AbstractContextManager[Any]:
    """Return a temporary file without a name, which vanishes with the last descriptor of it.

    Raises:
        MissingEnvironment: no directory for it can be written to.

    """
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise MissingEnvironment(
            f"temporary files cannot be written: {error.strerror}", hint="set TMPDIR to a directory with free space"
        ) from None
