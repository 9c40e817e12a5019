"""Image files with a folder for each class: lists them, and decodes them when their pixels are needed."""

from __future__ import annotations

import contextlib
import copy
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadData, BadImages, MissingEnvironment, install
from runtime.images.classes import in_order, listed
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from runtime.images.preprocessing import Preprocessing

Array = np.ndarray[Any, np.dtype[Any]]
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LITTER = ("Thumbs.db", "desktop.ini")
"""Files that a file manager leaves, besides those whose names begin with a dot."""
GREY = ("1", "L", "LA", "I")
"""Pillow's modes without colour; what follows a semicolon in a mode is ignored."""
PLAIN = ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
CLEAR = ("LA", "P", "PA", "RGBA", "RGBa")
"""Modes that may be transparent."""
BITS, PHOTOMETRIC, BLACK_IS_ZERO = 258, 262, 1
"""Two tags of TIFF, and the value of the second for a grey picture in which white is the largest number."""
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, struct.error, zlib.error)
"""The exceptions that Pillow raises for a damaged file."""
LAYOUT = "use one folder of images for each class: SET/CLASS/*.png"


class Pictures:
    """Images in files, used like an array [N, C, H, W] of uint8. An index selects some; numpy.asarray decodes them.

    So a set may be larger than the memory. All images must have the shape of the first.

    Args:
        files: paths of at least one file.
        channels: 1 for grey, 3 for RGB. By default grey if the first image is grey, and then all must be.
        preprocessing: resizes and crops every image; by default the images must already have one size.

    Raises:
        BadData: the first file cannot be read; or, when images are decoded, one cannot be read or has another shape.
        MissingEnvironment: Pillow is not installed.

    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, files: Sequence[Path | str], channels: int | None = None, preprocessing: Preprocessing | None = None
    ) -> None:
        self._files, self._preprocessing = np.asarray([str(file) for file in files], object), preprocessing
        self._picture = decode(str(files[0]), channels, preprocessing).shape
        self._channels = channels or (None if self._picture[0] == 1 else 3)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, C, H, W)."""
        return len(self._files), *self._picture

    @property
    def size(self) -> int:
        """The number of values in all images, which is also their size in bytes."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: slice | Sequence[int] | Array) -> Pictures:
        """Select images without decoding them."""
        some = copy.copy(self)
        some._files = self._files[index]
        return some

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Decode all images; numpy.asarray calls this."""
        images = np.empty(self.shape, dtype or np.uint8)
        for position, file in enumerate(self._files):
            picture = decode(file, self._channels, self._preprocessing)
            if picture.shape != self._picture:
                raise BadImages(
                    f"{file} is {times(picture.shape)}, the images before it are {times(self._picture)}",
                    hint="resize and crop all of them: --size N, or size = N under [data] in a recipe"
                    if picture.shape[0] == self._picture[0]
                    else "the first image is grey, so all must be: save that one in colour, or all in grey",
                )
            images[position] = picture
        return images


def class_files(path: Path) -> dict[str, list[Path]]:
    """Return the image files of every class folder, sorted by name; the folders are in the order of `in_order`.

    Raises:
        BadData: there is no class folder, one has no images, or two names are the same number.

    """
    names = in_order(entry.name for entry in _seen(path) if entry.is_dir())
    files = {name: sorted(filter(_is_picture, _seen(path / name))) for name in names}
    strays = [str(entry.relative_to(path)) for name in names for entry in _seen(path / name) if not _is_picture(entry)]
    strays += [entry.name for entry in filter(_is_picture, _seen(path))]
    if strays:
        log.warning(f"{path}: left out, because they are no pictures of a class: {listed(sorted(strays))}")
    if not files:
        raise _no_class_folders(path)
    for empty in (name for name, found in files.items() if not found):
        raise BadImages(f"{path}: {empty} holds no images", hint=LAYOUT)
    return files


def _no_class_folders(path: Path) -> BadData:
    if any(map(_is_picture, _seen(path))):
        return BadImages(
            f"{path} holds pictures, but no class folders", hint=f"did you mean the folder above it? {LAYOUT}"
        )
    return BadImages(f"{path} holds no class folders", hint=LAYOUT)


def _seen(path: Path) -> Iterator[Path]:
    """Yield the entries of a folder that are neither hidden nor LITTER."""
    return (entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.name not in LITTER)


def _is_picture(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and entry.is_file()


def times(shape: tuple[int, ...]) -> str:
    """Return a shape in words: 3 x 32 x 32."""
    return " x ".join(map(str, shape))


def decode(path: str, channels: int | None = None, preprocessing: Preprocessing | None = None) -> Array:
    """Decode one picture to bytes, as a person sees it. Training and evaluation both use this.

    EXIF orientation is applied, transparent pixels become white, and 16 bits are scaled to 8. A format that does not
    define which number is white, and a file with several frames, are refused.

    Args:
        path: the file.
        channels: 1 for grey, 3 for RGB; by default those of the file.
        preprocessing: resizes and crops the picture; by default it keeps its size.

    Returns:
        uint8 [C, H, W].

    Raises:
        BadData: the file cannot be read, or is refused.
        MissingEnvironment: Pillow is not installed.

    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise MissingEnvironment("an image folder needs Pillow", hint=install("report")) from None
    try:
        with _silence(), Image.open(path) as image:
            _refuse_frames(path, image)
            grey = channels == 1 if channels else image.mode.partition(";")[0] in GREY
            seen = _as_seen(path, image).convert("L" if grey else "RGB")
            pixels = np.asarray(preprocessing.apply(seen) if preprocessing else seen)
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise BadImages(f"{path} cannot be read as an image: {error}", hint="remove or replace it") from None
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about odd metadata and large pictures
        yield


def _refuse_frames(path: str, image: Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview or second exposure
        raise BadImages(f"{path} has {frames} frames, and it is unclear which is the picture", hint="save one frame")


def _is_of_16_bits(image: Image) -> bool:
    """Return whether black is 0 and white is 65535. For a TIFF its tags tell; Pillow scales the other formats so."""
    tags = getattr(image, "tag_v2", {})
    return (tags.get(BITS), tags.get(PHOTOMETRIC)) in ((None, None), ((16,), BLACK_IS_ZERO))


def _as_seen(path: str, image: Image) -> Image:
    """Return a picture upright, opaque and in 8 bits."""
    from PIL import Image as Module
    from PIL import ImageOps

    mode, plain, _ = image.mode.partition(";")
    sixteen = mode == "I" and (plain or image.format in ("PNG", "PPM")) and _is_of_16_bits(image)
    if (not sixteen and mode not in PLAIN + CLEAR) or (sixteen and "transparency" in image.info):
        raise BadImages(
            f"{path} has Pillow's mode {image.mode}, which does not say what number is white",
            hint="save it with 8 or 16 bits a channel",
        )
    image = ImageOps.exif_transpose(image)
    if sixteen:
        return Module.fromarray(np.rint(np.asarray(image, np.float64) / 257).astype(np.uint8))
    if mode in CLEAR or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Module.alpha_composite(Module.new("RGBA", image.size, "white"), image)
    return image
