"""A large array of images on disk, read by rows: memory does not grow with their number."""

from __future__ import annotations

import copy
import os
import weakref
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.images.unlinked_file import BLOCK, lasting, unnamed_file

if TYPE_CHECKING:
    import zipfile

    from runtime.images.decode import Pictures

Array = np.ndarray[Any, np.dtype[Any]]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether values are floats that are kept as float32, those of other sizes rounded."""
    return dtype.kind == "f" and dtype.itemsize <= 8


class StoredImages:
    """Images [N, C, H, W] in a temporary file without a name; indexes as an array does, along N alone.

    Args:
        file: holds the values in C order; it may be closed afterwards.
        shape: (N, C, H, W).
        dtype: of the values.

    Raises:
        ValueError: the file is longer or shorter than that.

    """

    def __init__(self, file: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self._last = shape, dtype, False
        self._whole: StoredImages | None = None
        if file.tell() != self.nbytes:
            raise ValueError("its length is not that of its shape")
        self._file = lasting(file)
        weakref.finalize(self, os.close, self._file)

    @classmethod
    def unpacked(cls, member: zipfile.ZipExtFile) -> StoredImages:
        """Unpack an array of an .npz; floats as float32.

        Raises:
            ValueError: it is no plain array in C order, or shorter than it says.

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
            return cls(file, shape, kind)

    @classmethod
    def decoded(cls, pictures: Pictures) -> StoredImages:
        """Decode image files, one after the other.

        Raises:
            BadData: see `Pictures`.

        """
        with unnamed_file() as file:
            for row in range(len(pictures)):
                file.write(np.asarray(pictures[row : row + 1]).data)
            return cls(file, pictures.shape, pictures.dtype)

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Return the number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the size of the values in bytes."""
        return self.dtype.itemsize * self.size

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.shape[0])

    def grey(self) -> StoredImages:
        """Take images stored as [N, H, W] for [N, 1, H, W]."""
        n, height, width = self.shape
        self.shape = (n, 1, height, width)
        return self

    def channels_first(self) -> StoredImages:
        """Turn images stored as [N, H, W, C] to [N, C, H, W], each when it is read."""
        n, height, width, channels = self.shape
        self.shape, self._last = (n, channels, height, width), True
        return self

    def first(self, n: int) -> StoredImages:
        """Return the first `n` images, which stay where they are."""
        some = copy.copy(self)
        some.shape, some._whole = (n, *self.shape[1:]), self  # the file is closed with whoever opened it
        return some

    def __getitem__(self, index: Any) -> Array:
        """Return the images that an integer, a slice, or an array of integers or booleans selects: a new array."""
        rows = np.arange(len(self))[index]
        images = self._rows(np.atleast_1d(rows).tolist())
        return images if rows.ndim else images.reshape(images.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all images."""
        return np.asarray(self[:], dtype)

    def _rows(self, rows: list[int]) -> Array:
        _, channels, height, width = self.shape
        stored = (height, width, channels) if self._last else (channels, height, width)
        size = self.dtype.itemsize * prod(stored)
        data = bytearray(size * len(rows))
        for position, row in enumerate(rows):
            data[position * size : (position + 1) * size] = os.pread(self._file, size, row * size)
        images = np.frombuffer(data, self.dtype).reshape(len(rows), *stored)
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if self._last else images
