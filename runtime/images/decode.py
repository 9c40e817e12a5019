"""Image files, a folder a class: listed, and decoded when their pixels are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadData, MissingEnvironment
from runtime.images.classes import in_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Array = np.ndarray[Any, np.dtype[Any]]
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")


class Pictures:
    """Images [N, C, H, W] uint8 in files: an index (slice, integers) selects some, numpy.asarray decodes them.

    So a set may be larger than the memory. All have the shape of the first.

    Args:
        files: at least one.
        channels: 1 reads grey, 3 reads RGB; by default grey where the first image is grey.

    Raises:
        BadData: the first file cannot be read; when decoded, any of them, or it has another shape.
        MissingEnvironment: Pillow is not installed.

    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, files: Sequence[Path | str], channels: int | None = None) -> None:
        self._files = np.asarray([str(file) for file in files], object)
        self._picture = _read(str(files[0]), channels).shape

    @property
    def shape(self) -> tuple[int, ...]:
        """N, C, H, W."""
        return len(self._files), *self._picture

    @property
    def size(self) -> int:
        """Values in all images: as many bytes when decoded."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: slice | Sequence[int] | Array) -> Pictures:
        """Select images, without decoding any."""
        some = object.__new__(Pictures)
        some._files, some._picture = self._files[index], self._picture
        return some

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Decode all images: numpy's protocol."""
        images = np.empty(self.shape, dtype or np.uint8)
        for place, file in enumerate(self._files):
            picture = _read(file, self._picture[0])
            if picture.shape != self._picture:
                raise BadData(
                    f"{file} is {times(picture.shape)}, the images before it are {times(self._picture)}",
                    hint="bring all images to the model's size first: edgeproof does not resize",
                )
            images[place] = picture
        return images


def class_files(path: Path) -> dict[str, list[Path]]:
    """Return the image files of every class folder, sorted by name; the folders as `in_order` has them.

    Raises:
        BadData: there is no class folder, one without images, or two of one number.

    """
    names = in_order(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = {
        name: sorted(file for file in (path / name).iterdir() if file.suffix.lower() in SUFFIXES) for name in names
    }
    for empty in [name for name, listed in files.items() if not listed] or ([path.name] if not files else []):
        raise BadData(f"{path}: {empty} holds no images", hint="one folder of images a class: SET/CLASS/*.png")
    return files


def times(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it: 3 x 32 x 32."""
    return " x ".join(map(str, shape))


def _read(path: str, channels: int | None) -> Array:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise MissingEnvironment("an image folder needs Pillow", hint="pip install 'edgeproof[report]'") from None
    try:
        with Image.open(path) as image:
            grey = channels == 1 if channels else image.mode in ("1", "L")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadData(f"{path} cannot be read as an image: {error}") from None
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
