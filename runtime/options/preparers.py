"""Models that are no bundle yet: packed into one by whoever knows their format, found by entry point."""

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
    """Packs the model in a file into a bundle at a path."""


@dataclass(frozen=True)
class Wanted:
    """What a bundle is made from, beside the model.

    Args:
        data: the evaluation set, as `runtime.images.find.find_images` takes it.
        layout: where images and model have their channels, if their shapes do not tell.
        data_root: where sets known by name lie.
        mean: taken off each channel of images in [0, 1], and
        std: divided by, before the model sees them; empty where it wants them as they are.
        gradient: whether the graph of the input gradient is wanted.
        size: what the pictures of a folder are brought to.
        classes: names, in the order of the logits; a folder's or numbers by default.
        bgr: whether the model takes blue first.
        output: which of its outputs has a number for each class, if their shapes do not tell.

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
    """Return what packs the model in a file into a bundle.

    Raises:
        BadBundle: nobody knows the format.
        MissingEnvironment: the extra of who does is not installed.

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
    """Read numbers, one for all channels or one each, also as 1/255."""
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
    """How the images of a model that is no bundle yet are brought to what it expects, and where it answers."""

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
    """Give a click command the options of `ModelOptions`, each by its own name."""
    for name in reversed(ModelOptions.model_fields):
        command = field_option(ModelOptions, name)(command)
    return command


data_root_option = field_option(VerifyOptions, "data_root")
