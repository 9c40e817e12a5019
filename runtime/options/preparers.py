"""Packing a model file into a bundle: the functions that do it, found by entry point, and their options."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from runtime.backends.builder import BUILDER, PREPARERS_GROUP
from runtime.errors import BadBundle, missing_extra
from runtime.images import DATA_ROOT
from runtime.options.record import Command, field_option
from runtime.records.options import Option
from runtime.spec import Frozen, Text, ThreatModel, parse_fraction
from runtime.verdict.options import VerifyOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.images.image_set import Layout
    from runtime.images.preprocessing import Preprocessing

    Preparer = Callable[[Path, Path, "Wanted", ThreatModel], Any]
    """Packs a model file into a bundle at a path."""


@dataclass(frozen=True)
class Wanted:
    """The inputs of packing, besides the model.

    Args:
        data: the evaluation set, as `runtime.images.find.find_images` takes it.
        layout: the place of the channels in images and model, if their shapes do not tell.
        data_root: the directory of image sets that are known by name.
        mean: subtracted from each channel of images in [0, 1]; empty for nothing.
        std: then divides each channel; empty for nothing.
        gradient: whether to make the gradient graph.
        size: the size to which the pictures of a folder are brought.
        classes: the names of classes, in the order of the logits; by default a folder's, or numbers.
        bgr: whether the model takes channels in the order blue, green, red.
        output: the name of the output with the logits, if shapes do not tell.

    """

    data: str
    layout: Layout | None = None
    data_root: Path = DATA_ROOT
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    gradient: bool = True
    size: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    bgr: bool = False
    output: str | None = None


def preparer_of(path: Path) -> Preparer:
    """Return the function that packs a model file into a bundle, by the file's suffix.

    Raises:
        BadBundle: no installed package knows the format.
        MissingEnvironment: the extra that it needs is not installed.

    """
    known = {entry.name: entry for entry in entry_points(group=PREPARERS_GROUP) if entry.name != BUILDER}
    entry = known.get(path.suffix.lower().removeprefix("."))
    if entry is None:
        suffixes = ", ".join(f".{name}" for name in sorted(known))
        raise BadBundle(
            f"{path} is neither a bundle nor a model",
            hint=f"a bundle is a directory, a model ends in {suffixes}; torch.onnx.export writes PyTorch's",
        )
    try:
        pack: Preparer = entry.load()
    except ImportError as error:
        raise missing_extra(f"`edgeproof verify` of a {path.suffix} file", tuple(entry.extras), error) from error
    return pack


def _numbers(value: Any) -> Any:
    """Parse numbers, one for all channels or one per channel; 1/255 is a number too."""
    if not isinstance(value, str):
        return value
    numbers = tuple(parse_fraction(word) for word in value.split(","))
    if not all(isinstance(number, float) for number in numbers):
        raise ValueError(f"{value!r} is not a number, or numbers separated by commas")
    return numbers


def _positive(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if any(number <= 0 for number in numbers):
        raise ValueError("--std must be positive")
    return numbers


def _of_unit_range(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if any(number > 1 for number in numbers):
        of_bytes = ",".join(f"{number:g}/255" for number in numbers)
        raise ValueError(
            f"{_with_commas(numbers)} is more than 1, but images are in [0, 1]: for a model of images of 0 to 255 "
            f"write {of_bytes}, and --std 1/255 if the model divides by nothing"
        )
    return numbers


def _with_commas(numbers: tuple[float, ...]) -> str:
    return ",".join(map(str, numbers))


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers), AfterValidator(_of_unit_range)]


class ModelOptions(Frozen):
    """The normalisation and channel order that a model file expects, and the name of its output."""

    mean: Annotated[
        Numbers,
        Option(
            "Subtract this from each channel of images in [0, 1] before the model, as .49,.48,.45.", write=_with_commas
        ),
    ] = ()
    std: Annotated[
        Numbers,
        AfterValidator(_positive),
        Option("Then divide each channel by this, as .25,.24,.26.", write=_with_commas),
    ] = ()
    bgr: Annotated[bool, Option("The model takes BGR. --mean and --std stay in RGB order.")] = False
    output: Annotated[
        Text | None,
        Option("Name of the model output that holds the logits.  [default: the only one that fits]", type=str),
    ] = None


def model_options(command: Command) -> Command:
    """Add the options of `ModelOptions` to a click command, each as a parameter of its own."""
    for name in reversed(ModelOptions.model_fields):
        command = field_option(ModelOptions, name)(command)
    return command


data_root_option = field_option(VerifyOptions, "data_root")
