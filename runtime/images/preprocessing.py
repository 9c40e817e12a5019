"""The size that pictures are brought to: resized and cropped as torchvision's evaluation does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from runtime.spec import Frozen

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 2**14
Side = Annotated[int, Field(gt=0, le=LARGEST)]


class Preprocessing(Frozen):
    """What is done to each picture: resized in proportion, antialiased, to cover `resize`, then cut to `crop`.

    Both are (height, width), in pixels. Where `resize` is a square, that is torchvision's Resize(side) and
    CenterCrop(crop), with which the evaluation of its pretrained models begins.
    """

    resize: tuple[Side, Side]
    crop: tuple[Side, Side]
    interpolation: Literal["bilinear"] = "bilinear"

    @model_validator(mode="after")
    def _covers(self) -> Preprocessing:
        if self.crop[0] > self.resize[0] or self.crop[1] > self.resize[1]:
            raise ValueError("what is cut out is larger than what is resized to")
        return self

    def __str__(self) -> str:
        """Return what `read_size` reads: 224, 96x128, 256:224."""
        resize, crop = (f"{high}" if high == wide else f"{high}x{wide}" for high, wide in (self.resize, self.crop))
        return crop if resize == crop else f"{resize}:{crop}"

    def in_words(self) -> str:
        """Return what is done, as a sentence ends."""
        (high, wide), (rows, columns) = self.resize, self.crop
        how = f"resized to cover {high} x {wide} ({self.interpolation}, antialiased)"
        return f"{how}, then cut to the {rows} x {columns} in the middle"

    def apply(self, image: Image) -> Image:
        """Return a picture of mode L or RGB in this size."""
        from PIL.Image import Resampling

        size = self.resized(image.size)
        if size != image.size:
            image = image.resize(size, Resampling.BILINEAR)
        (wide, high), (rows, columns) = size, self.crop
        # As torchvision's center_crop rounds.
        top, left = round((high - rows) / 2), round((wide - columns) / 2)
        return image.crop((left, top, left + columns, top + rows))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of a picture of this (width, height) after it is resized; the longer side is cut."""
        (wide, high), (rows, columns) = size, self.resize
        if rows * wide >= columns * high:
            return rows * wide // high, rows
        return columns, columns * high // wide


def read_size(value: Any) -> Any:
    """Read 224, '224', '96x128' (height x width), or '256:224' (resized to the one, cut to the other).

    Returns:
        The fields of `Preprocessing`; what is neither text nor a number as it is.

    Raises:
        ValueError: it is no size.

    """
    if not isinstance(value, int | str) or isinstance(value, bool):
        return value
    try:
        resize, *rest = (_sides(part) for part in str(value).split(":"))
        (crop,) = rest or (resize,)
    except ValueError:
        raise ValueError(f"{value!r} is not {SIZE}") from None
    return {"resize": resize, "crop": crop}


def _sides(text: str) -> tuple[int, int]:
    high, by, wide = text.partition("x")
    return int(high), int(wide if by else high)


SIZE = "a size: 224, 96x128 (height x width), or 256:224 (resized to the one, cut to the other)"
Size = Annotated[Preprocessing, BeforeValidator(read_size), PlainSerializer(str)]
"""As a recipe has it: 224, "96x128", "256:224"."""
