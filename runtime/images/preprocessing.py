"""The size of pictures: they are resized and cropped as in torchvision's evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from runtime.spec import Frozen

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 2**14
Side = Annotated[int, Field(gt=0, le=LARGEST)]


class Preprocessing(Frozen):
    """The resizing and cropping of each picture: resized in proportion, antialiased, to cover `resize`, then cropped.

    `resize` and `crop` are (height, width) in pixels. If `resize` is a square, this is torchvision's Resize(side) and
    CenterCrop(crop), with which its pretrained models are evaluated.
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
        """Return the text that `read_size` parses: 224, 96x128, 256:224."""
        resize, crop = (f"{high}" if high == wide else f"{high}x{wide}" for high, wide in (self.resize, self.crop))
        return crop if resize == crop else f"{resize}:{crop}"

    def in_words(self) -> str:
        """Return the steps in words, as the end of a sentence."""
        (high, wide), (rows, columns) = self.resize, self.crop
        how = f"resized to cover {high} x {wide} ({self.interpolation}, antialiased)"
        return f"{how}, then cut to the {rows} x {columns} in the middle"

    def apply(self, image: Image) -> Image:
        """Return a picture of mode L or RGB resized and cropped."""
        from PIL.Image import Resampling

        size = self.resized(image.size)
        if size != image.size:
            image = image.resize(size, Resampling.BILINEAR)
        (wide, high), (rows, columns) = size, self.crop
        # Rounded as in torchvision's center_crop.
        top, left = round((high - rows) / 2), round((wide - columns) / 2)
        return image.crop((left, top, left + columns, top + rows))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return a picture's (width, height) after resizing: it covers `resize`, and is cropped next."""
        (wide, high), (rows, columns) = size, self.resize
        if rows * wide >= columns * high:
            return rows * wide // high, rows
        return columns, columns * high // wide


def read_size(value: Any) -> Any:
    """Parse 224, '224', '96x128' (height x width), or '256:224' (resized to the first, cropped to the second).

    Returns:
        The fields of `Preprocessing`; a value that is neither text nor a number is returned unchanged.

    Raises:
        ValueError: the text is not a size.

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
"""A size in a recipe: 224, "96x128", "256:224"."""
