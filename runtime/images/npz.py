"""Archives of arrays: a user's images with labels, the set inside a bundle, what a run leaves; read from a stream."""

from __future__ import annotations

import contextlib
import io
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from runtime.errors import BadData
from runtime.images.image_set import PLAIN_CHANNELS, Array, ImageSet, Layout
from runtime.images.store import StoredImages
from runtime.images.unlinked_file import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = (("x", "y", "ids"), ("images", "labels", "ids"))
"""Names of images, labels and ids inside an .npz: a user's file, and the set inside a bundle."""
UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, MemoryError, OverflowError, SyntaxError, TypeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for a damaged, encrypted, pickled or foreign file."""
MAGIC = b"\x93NUMPY"
"""What every array in an .npz begins with."""


def read_npz(source: Path | bytes | BinaryIO, *, name: str | None = None, layout: Layout | None = None) -> ImageSet:
    """Read `x` (uint8, or float32 in [0, 1]) and `y`, or a bundle's `images`, `labels`, `ids`, from an .npz.

    Large images are unpacked to disk (`StoredImages`), so that memory does not grow with their number.

    Args:
        source: the file, open or not, or its bytes.
        name: what the report calls it; the file's stem by default.
        layout: of `x`; by default channels are the axis with 1 or 3 entries, where only one place fits.

    Raises:
        BadData: not an .npz, damaged, pickled, a key is missing, or see `ImageSet`.

    """
    where = str(source) if isinstance(source, Path) else (name or "npz")
    name = name or (source.stem if isinstance(source, Path) else where)
    images, labels, ids = _load(source, where)
    images = _to_nchw(where, images, layout)
    return ImageSet(name, images, labels, np.arange(len(images)) if ids is None else ids)


@contextlib.contextmanager
def open_npz(source: Path | bytes | BinaryIO) -> Iterator[Any]:
    """Yield the arrays of an .npz, by name; raises one of UNREADABLE where it is none."""
    with _stream(source) as stream:
        file = np.load(stream, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it is a single array")
        with file:
            for name in file.zip.namelist():  # numpy hands out what is no array as bytes
                with file.zip.open(name) as member:
                    if member.read(len(MAGIC)) != MAGIC:
                        raise ValueError(f"{name!r} is no array")
            yield file


def _stream(source: Path | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, Path):
        return source.open("rb")
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _load(source: Path | bytes | BinaryIO, where: str) -> tuple[Any, Array, Array | None]:
    try:
        with open_npz(source) as file:
            for images, labels, ids in KEYS:
                if images in file and labels in file:
                    return _images(file, images), file[labels], file.get(ids)
            found = ", ".join(file) or "nothing"
    except UNREADABLE as error:
        raise BadData(f"{where} cannot be read as .npz: {error}", hint="numpy.savez writes one") from None
    raise BadData(f"{where} holds {found}: x and y are missing", hint="numpy.savez(file, x=images, y=labels)")


def _images(file: Any, name: str) -> Any:
    """Return an array of an .npz: in memory, or on disk where it is large."""
    if file.zip.getinfo(f"{name}.npy").file_size < LARGE:
        return file[name]
    with file.zip.open(f"{name}.npy") as member:
        return StoredImages.unpacked(member)


def _to_nchw(where: str, images: Any, layout: Layout | None) -> Any:
    if images.ndim != 4:
        raise BadData(
            f"{where}: images have shape {images.shape}",
            hint="four axes: N,C,H,W, or N,H,W,C with --layout nhwc",
        )
    layout = layout or _plain_layout(where, images.shape)
    if layout == "nchw":
        return images
    if isinstance(images, StoredImages):
        return images.channels_first()
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _plain_layout(where: str, shape: tuple[int, ...]) -> Layout:
    first, last = shape[1] in PLAIN_CHANNELS, shape[3] in PLAIN_CHANNELS
    if first == last:
        raise BadData(
            f"{where}: which axis of {shape} holds the channels is not plain",
            hint="say --layout nchw or nhwc",
        )
    return "nchw" if first else "nhwc"
