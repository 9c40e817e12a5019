"""Copies of files, made and hashed in one pass; small ones are kept in memory, large ones on disk."""

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
"""The size in bytes from which something stays on disk."""
BLOCK = 2**20
"""The bytes that are copied at once."""


@dataclass(frozen=True)
class Copy:
    """The bytes of a file at the time when it was read, so that the checked bytes are used even if the file changes.

    Two copies are equal if their bytes are.

    Args:
        sha256: the digest of the bytes, in hexadecimal.
        size: the number of bytes.
        held: the bytes, or the descriptor of a private file, which is closed with this copy.

    """

    sha256: str
    size: int
    held: bytes | int = field(repr=False, compare=False)

    def open(self) -> BinaryIO:
        """Return the bytes as an open file, at its beginning. Use one at a time: all share one position."""
        if isinstance(self.held, bytes):
            return io.BytesIO(self.held)
        file = os.fdopen(os.dup(self.held), "rb")
        file.seek(0)
        return file

    def read(self) -> bytes:
        """Return all bytes."""
        with self.open() as file:
            return file.read()


def copied(source: BinaryIO, at_most: int, *, large: bool) -> Copy:
    """Copy a file in blocks to its end, but at most `at_most` + 1 bytes; keep the copy on disk if `large`.

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
    """Return a temporary file without a name, which is removed when its last descriptor is closed.

    Raises:
        MissingEnvironment: no temporary directory can be written to.

    """
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise MissingEnvironment(
            f"temporary files cannot be written: {error.strerror}", hint="set TMPDIR to a directory with free space"
        ) from None
