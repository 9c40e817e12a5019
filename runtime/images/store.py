"""Large arrays of images on disk, mapped into memory, so that the system can reclaim the memory that they take."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.images.unlinked_file import BLOCK, unnamed_file

if TYPE_CHECKING:
    import zipfile

    from runtime.images.decode import Pictures

Mapped = np.memmap[Any, np.dtype[Any]]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether values are floats of at most 64 bits, which are stored as float32."""
    return dtype.kind == "f" and dtype.itemsize <= 8


def unpacked(member: zipfile.ZipExtFile) -> Mapped:
    """Unpack an array of an .npz to disk, floats as float32.

    Raises:
        ValueError: it is not a plain array in C order, or its length does not match its shape.
        MissingEnvironment: see `unnamed_file`.

    """
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read(member)
    if fortran or dtype.hasobject:
        raise ValueError("it is no plain array in C order")
    kind = np.dtype(np.float32) if is_float(dtype) else dtype
    with unnamed_file() as file:
        while block := member.read(BLOCK):
            file.write(block if kind == dtype else np.frombuffer(block, dtype).astype(kind).data)
        return _mapped(file, shape, kind)


def decoded(pictures: Pictures) -> Mapped:
    """Decode image files to disk one by one.

    Raises:
        BadData: see `Pictures`.
        MissingEnvironment: see `unnamed_file`.

    """
    with unnamed_file() as file:
        for row in range(len(pictures)):
            file.write(np.asarray(pictures[row : row + 1]).data)
        return _mapped(file, pictures.shape, pictures.dtype)


def _mapped(file: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Mapped:
    file.flush()
    if file.tell() != dtype.itemsize * prod(shape):
        raise ValueError("its length is not that of its shape")
    return np.memmap(file, dtype, "r", shape=shape)
