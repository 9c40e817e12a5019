"""The images with which a model is packed, in the layout and with the channels that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.adapt.interface import dims_of, image_input
from runtime.errors import BadData
from runtime.images.classes import numbers, refuse_another_count, refuse_duplicates, refuse_two_orders
from runtime.images.find import find_images
from runtime.images.image_set import PLAIN_CHANNELS

if TYPE_CHECKING:
    from onnx import ModelProto

    from runtime.images.image_set import ImageSet, Layout
    from runtime.options.preparers import Wanted

DATA = "--data"


def images_for(model: ModelProto, wanted: Wanted, option: str = DATA) -> ImageSet:
    """Read the images that `option` names. `layout`, also the model's, counts only if the shapes leave it open.

    Raises:
        BadData: see `runtime.images.find.find_images`.

    """

    def read(layout: Layout | None) -> ImageSet:
        return find_images(
            wanted.data,
            root=wanted.data_root,
            layout=layout,
            channels=_channels(model),
            preprocessing=wanted.size,
            size=wanted.size if option == DATA else None,
            option=option,
            ordered=not wanted.classes,
        )

    try:
        return read(None)
    except BadData:
        if wanted.layout is None:
            raise
        return read(wanted.layout)


def check_normalisation(wanted: Wanted, channels: int) -> None:
    """Raise `BadData` unless mean and deviation have one number each, or one per channel."""
    for option, values in (("--mean", wanted.mean), ("--std", wanted.std)):
        if len(values) not in (0, 1, channels):
            raise BadData(
                f"{option} has {len(values)} values, but the images have {channels} channels",
                hint="give one value, or one per channel",
            )


def class_names(given: tuple[str, ...], images: ImageSet, logits: int) -> tuple[str, ...]:
    """Return the given names, those of the images, or numbers.

    Raises:
        BadData: there are not as many as logits, or two are the same; or see `refuse_two_orders`.

    """
    refuse_duplicates(given, "--classes")
    names = given or images.classes or numbers(logits)
    refuse_another_count("--classes" if given else images.name, names, logits)
    if not given:
        refuse_two_orders(images.name, names)
    return names


def _channels(model: ModelProto) -> int | None:
    """Return the channels of a model's input, if its shape says it: a folder is read in grey or colour."""
    dims = dims_of(image_input(model)) or ()
    if len(dims) == 3 and dims[0] is None:
        return 1
    ends = {4: (1, -1), 3: (0, -1)}.get(len(dims), ())
    plain = {dims[axis] for axis in ends} & set(PLAIN_CHANNELS)
    return plain.pop() if len(plain) == 1 else None
