"""Images with labels, in the type in which they are stored, and the checks that they must pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.errors import BadImages
from runtime.images.classes import class_numbers, listed, refuse_another_count, refuse_duplicates
from runtime.images.decode import times

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, np.dtype[Any]]
Layout = Literal["nchw", "nhwc"]

PLAIN_CHANNELS = (1, 3)
LARGEST = {"labels": 2**31, "ids": 2**63 - 1}
USUAL = "uint8, or floats in [0, 1]"
TO_BYTES = {
    "uint16": "if they go from 0 to 65535: (x / 65535).astype('float32')",
    "bool": "(255 * x).astype('uint8')",
} | dict.fromkeys(("int16", "int32", "int64", "uint32", "uint64"), "if they go from 0 to 255: x.astype('uint8')")
"""How to convert images of another type. Only the user knows which number is white, so it is not done here."""
CHUNK = 1000
"""The number of images that are read together where all are read."""


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, checked on creation.

    Args:
        name: the set's name in the report.
        images: [N, C, H, W], uint8, or float32 in [0, 1]; an array or `Pictures`.
        labels: [N], integers from 0; stored as int64.
        ids: [N], each image's number in the set from which it comes; stored as int64.
        classes: the names of the classes that labels number; None without names.

    Raises:
        BadData: images, labels or ids have a wrong shape or type; there is no image; a value is NaN or outside [0, 1];
            a label is negative, huge or of no class; or two classes have the same name.

    """

    name: str
    images: Any
    labels: Array
    ids: Array
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_images(self.name, self.images)
        for field in ("labels", "ids"):
            object.__setattr__(self, field, _numbers(self.name, field, getattr(self, field), len(self.images)))
        if self.classes is not None:
            refuse_duplicates(self.classes, self.name)
            self._check_labels(len(self.classes))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """The digest of the images' type, shape and values, and of the labels; name and file do not matter."""
        return self._digests[0]

    @property
    def pixels(self) -> Array:
        """The digest of each image's pixels, 8 bytes of SHA-256: int64 [N]. Copies of an image have the same."""
        return self._digests[1]

    @cached_property
    def _digests(self) -> tuple[str, Array]:
        """That of the set and those of its images, by one reading: pictures are decoded for it."""
        digest = hashlib.sha256(f"{self.images.dtype.name} {self.images.shape}\n".encode())
        each = []
        for some in self.chunks():
            digest.update(np.ascontiguousarray(some, some.dtype.newbyteorder("<")).data)
            each.append(pixel_digests(some))
        digest.update(np.ascontiguousarray(self.labels, "<i8").data)
        return digest.hexdigest(), np.concatenate(each)

    def chunks(self) -> Iterator[Array]:
        """Yield all images in their order, at most CHUNK at once: [B, C, H, W]."""
        for start in range(0, len(self), CHUNK):
            yield np.asarray(self.images[start : start + CHUNK])

    def rows(self, index: Any) -> ImageSet:
        """Return the images that `index` (a slice or an integer array) selects."""
        return replace(self, images=self.images[index], labels=self.labels[index], ids=self.ids[index])

    def first(self, n: int | None) -> ImageSet:
        """Return the first `n` images; all of them for None.

        Raises:
            BadData: the set has fewer images.

        """
        if n is None or n == len(self):
            return self
        if n > len(self):
            raise BadImages(
                f"{n} images are asked for, but {self.name} has {len(self)}",
                hint=f"use --n {len(self)}, or leave it out",
            )
        return self.rows(slice(n))

    def numbered(self, classes: tuple[str, ...]) -> ImageSet:
        """Return the set with labels that number a model's `classes`; a set without names stays as it is.

        Raises:
            BadData: see `class_numbers`.

        """
        if self.classes is None:
            return self
        return replace(self, labels=class_numbers(self.name, self.classes, classes)[self.labels], classes=classes)

    def as_float(self, index: Any) -> Array:
        """Return the selected images as a new array, float32 [B, C, H, W] in [0, 1]."""
        chosen = np.asarray(self.images[index])
        scale = np.float32(255 if chosen.dtype == np.uint8 else 1)
        return np.asarray(chosen.astype(np.float32, order="C") / scale)

    def check_fits(self, shape: tuple[int, int, int], classes: tuple[str, ...]) -> None:
        """Raise `BadData` unless every image has `shape` (C, H, W), and every label numbers one of the `classes`."""
        self.check_shape(shape)
        if self.classes not in (None, classes):
            assert self.classes is not None
            refuse_another_count(self.name, self.classes, len(classes))
            raise BadImages(
                f"{self.name}: its classes ({listed(self.classes)}) are not the model's ({listed(classes)})",
                hint="use the same names in the same order, or give labels for the model's classes",
            )
        self._check_labels(len(classes))

    def check_shape(self, shape: tuple[int, int, int]) -> None:
        """Raise `BadData` unless every image has `shape` (C, H, W)."""
        if self.images.shape[1:] != shape:
            raise BadImages(
                f"{self.name} has images of {times(self.images.shape[1:])}, but the model takes {times(shape)}",
                hint="shapes are channels x height x width; --layout is for an .npz, --size resizes pictures",
            )

    def _check_labels(self, classes: int) -> None:
        wrong = np.flatnonzero(self.labels >= classes)
        if wrong.size:
            raise BadImages(
                f"{self.name}: image {wrong[0]} has label {self.labels[wrong[0]]}, but there are {classes} classes",
                hint="labels are class numbers from 0, in the order of the model's logits",
            )


def pixel_digests(images: Array) -> Array:
    """Return 8 bytes of SHA-256 of each image's pixels: int64 [N] from [N, C, H, W]."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest()[:8] for image in images]
    return np.frombuffer(b"".join(digests), "<i8")


def _check_images(name: str, images: Any) -> None:
    if images.ndim != 4 or 0 in images.shape:
        raise BadImages(f"{name}: images have shape {images.shape}", hint="N,C,H,W with at least one image")
    if images.dtype not in (np.uint8, np.float32):
        raise BadImages(f"{name}: images are {images.dtype}", hint=TO_BYTES.get(images.dtype.name, USUAL))
    if images.dtype == np.uint8:
        return
    sound = np.asarray(
        [bool(np.all((image >= 0) & (image <= 1))) for image in (images[row] for row in range(len(images)))]
    )
    if not sound.all():
        first = int(np.argmin(sound))
        low, high = float(np.min(images[first])), float(np.max(images[first]))
        raise BadImages(
            f"{name}: image {first} has values outside [0, 1] or NaN: {low:g} to {high:g}",
            hint="divide them by 255, or keep them as uint8"
            if low >= 0 and 2 <= high <= 255
            else "scale images to [0, 1]; give the model's normalisation by --mean and --std",
        )


def _numbers(name: str, field: str, values: Array, count: int) -> Array:
    values = np.asarray(values)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise BadImages(
            f"{name}: {field} are {values.dtype} of shape {values.shape}",
            hint=f"integers of shape ({count},)"
            + (", as y.astype('int64')" if values.shape == (count,) and values.dtype.kind == "f" else ""),
        )
    if values.min() < 0:
        raise BadImages(
            f"{name}: {field} have {values.min()} at index {int(values.argmin())}", hint="numbers count from 0"
        )
    if int(values.max()) > LARGEST[field]:
        raise BadImages(
            f"{name}: {field} have {values.max()} at index {int(values.argmax())}",
            hint=f"numbers up to {LARGEST[field]}",
        )
    return values.astype(np.int64)
