"""Models that are no bundle yet: packed into one by whoever knows their format, found by entry point."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import click

from runtime.backends.builder import BUILDER, PREPARERS_GROUP
from runtime.errors import BadBundle, missing_extra
from runtime.images.image_set import DATA_ROOT
from runtime.spec import ThreatModel, parse_fraction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.images.image_set import Layout
    from runtime.images.preprocessing import Preprocessing


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

    """

    data: str
    layout: Layout | None = None
    data_root: Path = DATA_ROOT
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    gradient: bool = True
    size: Preprocessing | None = None
    classes: tuple[str, ...] = ()


def prepare(path: Path, out: Path, wanted: Wanted, threat_model: ThreatModel) -> None:
    """Pack the model in a file into a bundle at `out`.

    Raises:
        BadBundle: nobody knows the format.
        MissingEnvironment: the extra of who does is not installed.
        EdgeproofError: what packing it raises.

    """
    known = {entry.name: entry for entry in entry_points(group=PREPARERS_GROUP) if entry.name != BUILDER}
    entry = known.get(path.suffix.lower().removeprefix("."))
    if entry is None:
        suffixes = ", ".join(f".{name}" for name in sorted(known))
        raise BadBundle(f"{path} is neither a bundle nor a model", hint=f"a bundle is a directory; models: {suffixes}")
    try:
        pack: Callable[[Path, Path, Wanted, ThreatModel], Any] = entry.load()
    except ImportError as error:
        raise missing_extra(f"`edgeproof verify` of a {path.suffix} file", tuple(entry.extras), error) from error
    pack(path, out, wanted, threat_model)


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Read numbers, one for all channels or one each, also as 1/255; anything else is a usage error."""
    numbers = [parse_fraction(word) for word in value.split(",")] if value is not None else []
    if not all(isinstance(number, float) for number in numbers):
        raise click.BadParameter(f"{value!r} is not a number, or numbers separated by commas")
    if param.name == "std" and any(number <= 0 for number in numbers):
        raise click.BadParameter("a deviation is more than 0")
    if any(number > 1 for number in numbers):
        of_bytes = ",".join(f"{number:g}/255" for number in numbers)
        raise click.BadParameter(
            f"{value} is more than 1, and images are taken in [0, 1]; of images of 0 to 255 say --{param.name} "
            f"{of_bytes}, and where nothing is divided by, --std 1/255"
        )
    return tuple(numbers)


mean_option = click.option(
    "--mean",
    callback=_numbers,
    help="What to take off each channel of images in [0, 1] before the model, as .49,.48,.45.",
)
std_option = click.option(
    "--std", callback=_numbers, help="What to divide each channel by before the model, as .25,.24,.26."
)
gradient_option = click.option(
    "--gradient",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    is_eager=True,
    help="none: no gradient is used, Square attacks alone; weak evidence.",
)
