"""Reads .npz files: a user's images and labels, the images of a bundle, and the arrays of a run."""

from __future__ import annotations

import contextlib
import io
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from runtime.errors import BadImages
from runtime.images.image_set import PLAIN_CHANNELS, Array, ImageSet, Layout
from runtime.images.store import is_float, unpacked
from runtime.images.unlinked_file import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator

Split = Literal["train", "test"]
KEYS = (
    ("x", "y"), ("X", "y"), ("X", "Y"), ("images", "labels"), ("data", "target"), ("data", "targets"),
    ("data", "labels"), ("image", "label"), ("arr_0", "arr_1"),
)  # fmt: skip
"""The usual names of images and labels in an .npz that has one part of a set."""
KEYS_OF = (
    ("x_{}", "y_{}"), ("X_{}", "y_{}"), ("X_{}", "Y_{}"), ("{}_x", "{}_y"), ("{}_images", "{}_labels"),
)  # fmt: skip
"""The usual names of one part in a file that has several; the part's name replaces {}."""
IDS = "ids"
UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, MemoryError, OverflowError, SyntaxError, TypeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""The exceptions that numpy and zipfile raise for a file that is damaged, encrypted, pickled or not an .npz."""
MAGIC = b"\x93NUMPY"
"""The first bytes of every array in an .npz."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""The first bytes of an archive, and of an empty one. numpy takes any other file for an array or a pickle."""


def read_npz(
    source: Path | bytes | BinaryIO, *, name: str | None = None, layout: Layout | None = None, split: Split = "test"
) -> ImageSet:
    """Read images (uint8, or floats in [0, 1]), labels and, if present, `ids` from an .npz.

    Labels are integers [N] or [N, 1], or one-hot [N, K]. Images [N, H, W] are grey. Large images are unpacked to disk
    and mapped, so that memory does not grow with their number.

    Args:
        source: a path, an open file, or the file's bytes.
        name: the set's name in the report; by default the file's stem.
        layout: of the images; by default the axis with 1 or 3 entries has the channels, if there is only one such axis.
        split: the part to read from a file that has several; see KEYS and KEYS_OF.

    Raises:
        BadData: the file is not an .npz, is damaged or pickled, or has no pair of usual names or several; or see
            `ImageSet`.

    """
    where = str(source) if isinstance(source, Path) else (name or "npz")
    name = name or (source.stem if isinstance(source, Path) else where)
    return from_arrays(name, *_load(source, where, split), layout=layout, where=where)


def from_arrays(
    name: str,
    images: Any,
    labels: Array,
    ids: Array | None = None,
    *,
    layout: Layout | None = None,
    where: str | None = None,
) -> ImageSet:
    """Return images and labels as a set, in the forms that `read_npz` takes.

    Args:
        name: the set's name in the report.
        images: [N, C, H, W], [N, H, W, C] or [N, H, W]; uint8, or floats in [0, 1].
        labels: integers [N] or [N, 1], or one-hot [N, K].
        ids: [N], each image's number in the set from which it comes; by default counted from 0.
        layout: of `images`; see `read_npz`.
        where: the set's name in errors; by default `name`.

    Raises:
        BadData: see `ImageSet`; or it is unclear which axis has the channels.

    """
    images = _to_nchw(where or name, images, layout)
    return ImageSet(name, images, _class_labels(name, labels), np.arange(len(images)) if ids is None else ids)


@contextlib.contextmanager
def open_npz(source: Path | bytes | BinaryIO) -> Iterator[Any]:
    """Yield the arrays of an .npz by name; raise one of UNREADABLE if it is not an .npz."""
    with _stream(source) as stream:
        begins = stream.read(len(MAGIC))
        if not begins.startswith(ZIP):
            raise ValueError("it is a single array" if begins == MAGIC else "it is no zip archive")
        stream.seek(0)
        file = np.load(stream, allow_pickle=False)
        with file:
            for name in file.zip.namelist():  # numpy returns a member that is not an array as bytes
                with file.zip.open(name) as member:
                    if member.read(len(MAGIC)) != MAGIC:
                        raise ValueError(f"{name!r} is no array")
            yield file


def _stream(source: Path | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, Path):
        return source.open("rb")
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _load(source: Path | bytes | BinaryIO, where: str, split: Split) -> tuple[Any, Array, Array | None]:
    try:
        with open_npz(source) as file:
            images, labels = _pair(where, list(file), split)
            return _images(file, images), file[labels], file.get(IDS)
    except UNREADABLE as error:
        raise BadImages(f"{where} cannot be read as .npz: {error}", hint="write one with numpy.savez") from None


def _pair(where: str, found: list[str], split: Split) -> tuple[str, str]:
    """Return the keys of images and labels, the only pair of usual names in the file."""
    usual = (*KEYS, *((images.format(split), labels.format(split)) for images, labels in KEYS_OF))
    pairs = [pair for pair in usual if set(pair) <= set(found)]
    if not pairs:
        absent = [key for key in KEYS[0] if key not in found]
        are = "is" if len(absent) == 1 else "are"
        raise BadImages(
            f"{where} holds {', '.join(found) or 'nothing'}: {' and '.join(absent)} {are} missing",
            hint=f"numpy.savez(file, x=images, y=labels); also read: {', '.join(map('/'.join, usual[1:]))}",
        )
    if len(pairs) > 1:
        raise BadImages(
            f"{where} holds {', '.join(found)}: it is unclear which are the images and labels "
            f"({' or '.join(map('/'.join, pairs))})",
            hint="write only one pair: numpy.savez(file, x=images, y=labels)",
        )
    return pairs[0]


def _class_labels(name: str, labels: Array) -> Array:
    """Return labels [N, 1] and one-hot labels [N, K] as numbers [N], and others unchanged.

    Raises:
        BadData: a row of [N, K] is not one-hot.

    """
    if labels.ndim != 2 or labels.dtype.kind not in "iufb":
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0]
    hot = labels == 1
    strange = ~((hot | (labels == 0)).all(axis=1) & (hot.sum(axis=1) == 1))
    if strange.any():
        raise BadImages(
            f"{name}: labels have shape {labels.shape}, and row {int(strange.argmax())} is not one 1 among zeros",
            hint="the number of a class for each image, or a one-hot row",
        )
    return np.asarray(hot.argmax(axis=1))


def _images(file: Any, name: str) -> Any:
    """Return the images of an .npz, floats as float32; large ones are on disk."""
    if file.zip.getinfo(f"{name}.npy").file_size < LARGE:
        images = file[name]
        return np.asarray(images, np.float32) if is_float(images.dtype) else images
    with file.zip.open(f"{name}.npy") as member:
        return unpacked(member)


def _to_nchw(where: str, images: Any, layout: Layout | None) -> Any:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise BadImages(
            f"{where}: images have shape {images.shape}",
            hint="N,C,H,W, or N,H,W,C with --layout nhwc, or N,H,W of grey images",
        )
    layout = layout or _plain_layout(where, images.shape)
    if layout == "nchw":
        return images
    first = images.transpose(0, 3, 1, 2)
    return first if isinstance(images, np.memmap) else np.ascontiguousarray(first)


def _plain_layout(where: str, shape: tuple[int, ...]) -> Layout:
    first, last = shape[1] in PLAIN_CHANNELS, shape[3] in PLAIN_CHANNELS
    if first == last:
        raise BadImages(
            f"{where}: it is unclear which axis of {shape} holds the channels",
            hint="give --layout nchw or nhwc",
        )
    return "nchw" if first else "nhwc"
