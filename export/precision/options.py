"""The options for the precisions of a bundle, and their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from export.precision.calibrate import IMAGES, METHODS
from export.precision.table import PRECISIONS, SHIPPING, Choice, precisions
from runtime.options.record import OneOf

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO, NONE = "auto", "none"


def _precisions(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the requested keys of PRECISIONS, in order and once each; an unknown one is a usage error."""
    return precisions(value.split(",")) if value is not None else ()


def _layers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...] | None:
    """Return the named layers, or None if they are chosen automatically."""
    if value == AUTO:
        return None
    return () if value == NONE else tuple(dict.fromkeys(name.strip() for name in value.split(",")))


def precision_options(default: str | None) -> Callable[[Any], Any]:
    """Add the options that `choice` reads. `default` is the default of --precision; None is the model's own."""
    options = (
        click.option(
            "--precision",
            callback=_precisions,
            default=default,
            help=f"Precisions to write, comma-separated: {', '.join(PRECISIONS)}.  "
            f"[default: {default or 'as the model has it'}]",
        ),
        click.option(
            "--ships",
            type=OneOf(list(PRECISIONS)),
            help=f"Precision that goes to the device.  [default: the first of {', '.join(SHIPPING)} that is written]",
        ),
        click.option(
            "--calibration-method",
            type=OneOf(list(METHODS)),
            default=next(iter(METHODS)),
            show_default=True,
            help="Method by which int8 determines its ranges.",
        ),
        click.option(
            "--calibration-images",
            type=click.IntRange(min=1),
            default=IMAGES,
            show_default=True,
            help="Maximum number of calibration images.",
        ),
        click.option(
            "--keep-fp16",
            callback=_layers,
            default=AUTO,
            show_default=True,
            metavar="LAYERS",
            help="Layers of int8 that stay in fp16: names of their weights, or none. "
            "With auto, the most sensitive layers stay if plain int8 costs more than a point.",
        ),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def choice(options: dict[str, Any]) -> Choice:
    """Remove the options of `precision_options` from a command's options, and return them as a choice.

    Raises:
        BadParameter: the precision that ships is not among the precisions.

    """
    names, ships = options.pop("precision"), options.pop("ships")
    if ships and names and ships not in names:
        raise click.BadParameter(f"{ships} is not among the precisions {', '.join(names)}", param_hint="--ships")
    rest = (options.pop(name) for name in ("calibration_method", "calibration_images", "keep_fp16"))
    return Choice(names, ships, *rest)
