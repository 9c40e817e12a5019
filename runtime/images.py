"""Evaluation sets: an .npz, an image folder, the set inside a bundle, or a name; kept as stored."""

from __future__ import annotations

import hashlib
import io
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.errors import BadData, UsageFault, missing_extra
from runtime.pictures import Pictures, class_files, times
from runtime.progress import log
from runtime.stored import LARGE, StoredImages

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, np.dtype[Any]]
Layout = Literal["nchw", "nhwc"]

DATASETS_GROUP = "edgeproof.datasets"
DATA_ROOT = Path("data")
KEYS = (("x", "y", "ids"), ("images", "labels", "ids"))
"""Names of images, labels and ids inside an .npz: a user's file, and the set inside a bundle."""
PLAIN_CHANNELS = (1, 3)
UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, MemoryError, OverflowError, SyntaxError, TypeError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for a damaged, encrypted, pickled or foreign file."""
MAGIC = b"\x93NUMPY"
"""What every array in an .npz begins with."""
LARGEST = {"labels": 2**31, "ids": 2**63 - 1}
CHUNK = 1000
"""Images that are looked at together where all are, one after the other."""
LISTED = 8
"""Names that a message lists before it stops."""


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels; checked when made.

    Args:
        name: what the report calls the set.
        images: [N, C, H, W], uint8, or float32 in [0, 1]; an array, or what is indexed and decoded as one: `Pictures`,
            `StoredImages`.
        labels: [N], integers from 0; kept as int64.
        ids: [N], each image's number in the set it comes from; kept as int64.

    Raises:
        BadData: wrong shape or type, no image, a value outside [0, 1] or NaN, a negative or huge label.

    """

    name: str
    images: Any
    labels: Array
    ids: Array

    def __post_init__(self) -> None:
        _check_images(self.name, self.images)
        for field in ("labels", "ids"):
            object.__setattr__(self, field, _numbers(self.name, field, getattr(self, field), len(self.images)))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """Digest of type, shape and values of the images and labels; not of the name or the file."""
        digest = hashlib.sha256(f"{self.images.dtype.name} {self.images.shape}\n".encode())
        for start in range(0, len(self), CHUNK):
            some = np.asarray(self.images[start : start + CHUNK])
            digest.update(np.ascontiguousarray(some, some.dtype.newbyteorder("<")).data)
        digest.update(np.ascontiguousarray(self.labels, "<i8").data)
        return digest.hexdigest()

    def rows(self, index: Any) -> ImageSet:
        """Return the images that `index` (a slice or an integer array) selects."""
        return ImageSet(self.name, self.images[index], self.labels[index], self.ids[index])

    def first(self, n: int | None) -> ImageSet:
        """Return the first `n` images; all of them for None.

        Raises:
            BadData: there are fewer.

        """
        if n is None or n == len(self):
            return self
        if n > len(self):
            raise BadData(
                f"{n} images asked for, {self.name} has {len(self)}", hint=f"--n {len(self)}, or leave it out"
            )
        return self.rows(slice(0, n))

    def as_float(self, index: Any) -> Array:
        """Return the selected images as float32 [B, C, H, W] in [0, 1]: a new array."""
        chosen = np.asarray(self.images[index])
        scale = np.float32(255 if chosen.dtype == np.uint8 else 1)
        return np.asarray(chosen.astype(np.float32) / scale)

    def check_fits(self, shape: tuple[int, int, int], classes: int) -> None:
        """Raise `BadData` unless every image has `shape` (C, H, W) and every label is below `classes`."""
        if self.images.shape[1:] != shape:
            raise BadData(
                f"{self.name} has images of {times(self.images.shape[1:])}, the model takes {times(shape)}",
                hint="channels x height x width; --layout says where an .npz has its channels",
            )
        wrong = np.flatnonzero(self.labels >= classes)
        if wrong.size:
            raise BadData(
                f"{self.name}: image {wrong[0]} has label {self.labels[wrong[0]]} of {classes} classes",
                hint="labels are class numbers from 0, in the order of the model's logits",
            )


def read_npz(source: Path | bytes, *, name: str | None = None, layout: Layout | None = None) -> ImageSet:
    """Read `x` (uint8, or float32 in [0, 1]) and `y`, or a bundle's `images`, `labels`, `ids`, from an .npz.

    Args:
        source: the file, or its bytes.
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


def read_folder(
    path: Path, *, channels: int | None = None, name: str | None = None, decoded: bool = True
) -> tuple[ImageSet, tuple[str, ...]]:
    """Read a folder with one folder of images a class; labels follow the sorted class names.

    Args:
        path: the folder.
        channels: 1 reads grey, 3 reads RGB; by default grey where the first image is grey.
        name: what the report calls the set; the folder's by default.
        decoded: whether to decode the images now, or whenever they are looked at (see `Pictures`).

    Returns:
        The set, uint8, in turn an image of every class, so that its first images are of all; and the class names.

    Raises:
        BadData: no class folder, a class without images, an unreadable image, or images of different sizes.
        MissingEnvironment: Pillow is not installed.

    """
    files = class_files(path)
    classes = tuple(files)
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in files.values()])
    order = _in_turn(labels)
    listed = [file for names in files.values() for file in names]
    pictures: Any = Pictures([listed[place] for place in order], channels)
    images = np.asarray(pictures) if decoded else pictures
    return ImageSet(name or path.name, images, labels[order], np.arange(len(labels))), classes


def find_images(
    data: str,
    *,
    root: Path = DATA_ROOT,
    layout: Layout | None = None,
    channels: int | None = None,
    classes: tuple[str, ...] = (),
) -> ImageSet:
    """Read the evaluation set that `--data` names: a known name, a folder or an .npz.

    Args:
        data: a name registered under the entry-point group `edgeproof.datasets`, or a path.
        root: where a set known by name lies, or is downloaded to.
        layout: see `read_npz`.
        channels: see `read_folder`.
        classes: the model's class names, if known; see `_folder_labels`.

    Raises:
        UsageFault: neither a known name nor a path that exists.
        BadData: see `read_npz`, `read_folder` and `_folder_labels`.
        MissingEnvironment: a known name whose extra is not installed.

    """
    path = Path(data)
    known = {entry.name: entry for entry in entry_points(group=DATASETS_GROUP)}
    if data in known:
        return _by_name(known[data], root)
    if data and path.is_dir():
        images, names = read_folder(path, channels=channels)
        numbers = _folder_labels(path, names, classes or names)
        return ImageSet(images.name, images.images, numbers[images.labels], images.ids)
    if path.is_file():
        return read_npz(path, layout=layout)
    raise UsageFault(
        f"--data {data}: no such file, folder or known set",
        hint=f"known: {', '.join(sorted(known)) or 'none'}",
    )


def _by_name(entry: Any, root: Path) -> ImageSet:
    try:
        read = entry.load()
    except ImportError as error:
        raise missing_extra(f"the data set {entry.name}", tuple(entry.extras), error) from error
    images: ImageSet = read(root)
    return images


def _folder_labels(path: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> Array:
    """Return the label of each folder: the class of its name; its own number where no class has any of the names.

    Raises:
        BadData: only some are names of classes, or none is and there are not as many folders as classes.

    """
    strange = [name for name in names if name not in classes]
    if not strange:
        return np.asarray([classes.index(name) for name in names])
    if len(strange) < len(names) or len(names) != len(classes):
        raise BadData(
            f"{path}: no class of the model is called {_listed(strange)}",
            hint=f"name the folders as the classes ({_listed(classes)}), or give an .npz",
        )
    numbers = ", ".join(f"{number} = {name}" for number, name in enumerate(names))
    log(f"{path}: folders are numbered in alphabetical order: {numbers}")
    return np.arange(len(names))


def _in_turn(labels: Array) -> Array:
    """Return the order that takes the first image of every class, then the second; `labels` are sorted."""
    position = np.arange(len(labels)) - np.searchsorted(labels, labels)
    return np.lexsort((labels, position))


def _load(source: Path | bytes, where: str) -> tuple[Any, Array, Array | None]:
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
        return StoredImages(member)


def open_npz(source: Path | bytes) -> Any:
    """Return the arrays of an .npz, by name; raises one of UNREADABLE where it is none."""
    file = np.load(io.BytesIO(source if isinstance(source, bytes) else source.read_bytes()), allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise ValueError("it is a single array")
    for name in file.zip.namelist():  # numpy hands out what is no array as bytes
        with file.zip.open(name) as member:
            if member.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{name!r} is no array")
    return file


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


def _check_images(name: str, images: Any) -> None:
    if images.ndim != 4 or 0 in images.shape:
        raise BadData(f"{name}: images have shape {images.shape}", hint="N,C,H,W with at least one image")
    if images.dtype not in (np.uint8, np.float32):
        raise BadData(f"{name}: images are {images.dtype}", hint="uint8, or float32 in [0, 1]")
    if images.dtype == np.uint8:
        return
    sound = np.asarray(
        [bool(np.all((image >= 0) & (image <= 1))) for image in (images[row] for row in range(len(images)))]
    )
    if not sound.all():
        raise BadData(
            f"{name}: image {int(np.argmin(sound))} has values outside [0, 1] or NaN",
            hint="scale images to [0, 1]; the model's normalisation belongs into the graph",
        )


def _numbers(name: str, field: str, values: Array, count: int) -> Array:
    values = np.asarray(values)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise BadData(
            f"{name}: {field} are {values.dtype} of shape {values.shape}",
            hint=f"integers of shape ({count},)",
        )
    if values.min() < 0:
        raise BadData(
            f"{name}: {field} has {values.min()} at place {int(values.argmin())}", hint="numbers count from 0"
        )
    if int(values.max()) > LARGEST[field]:
        raise BadData(
            f"{name}: {field} has {values.max()} at place {int(values.argmax())}",
            hint=f"numbers up to {LARGEST[field]}",
        )
    return values.astype(np.int64)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
