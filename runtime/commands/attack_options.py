"""The options that judging commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource
from pydantic import TypeAdapter, ValidationError

from runtime.attacks import ATTACKS, DEFAULT, NAMES, any_bounded
from runtime.errors import UsageFault
from runtime.images.image_set import DATA_ROOT
from runtime.spec import PARENT, Fraction, Gate, ThreatModel
from runtime.verdict.shards import Shard
from runtime.verdict.subject import Settings

if TYPE_CHECKING:
    from runtime.images.image_set import Layout

Command = TypeVar("Command", bound=Callable[..., Any])

CLEAN = "clean"
"""Accepted among the attacks: accuracy without any is always measured."""
NO_GRADIENT = "none"
BLACK_BOX = tuple(name for name, attack in ATTACKS.items() if not attack.uses_gradient)
OWN = "  [default: the subject's own]"


def fraction(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a number from 0 to 1, also written as '8/255' or '45%'; anything else is a usage error."""
    if value is None:
        return None
    try:
        return TypeAdapter(Fraction).validate_python(value)
    except ValidationError:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 1, like 8/255, 0.03 or 45%") from None


def _attacks(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the NAMES asked for, in order and once each; an unknown name is a usage error.

    Without gradients that is Square by default, and an attack that needs them is a usage error.
    """
    blind = ctx.params.get("gradient") == NO_GRADIENT
    if blind and ctx.get_parameter_source(param.name or "") is ParameterSource.DEFAULT:
        return BLACK_BOX
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in (CLEAN, *NAMES):
            raise click.BadParameter(f"{name!r} is not an attack; known: {', '.join((CLEAN, *NAMES))}")
        if blind and name not in (CLEAN, *BLACK_BOX):
            raise click.BadParameter(f"{name} needs the gradient; --gradient none leaves {', '.join(BLACK_BOX)}")
    return tuple(name for name in names if name in NAMES)


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> Shard | None:
    """Read '2/5'; anything else is a usage error."""
    if value is None:
        return None
    try:
        return Shard.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class NewDirectory(click.Path):
    """A directory to be made; an empty name is a usage error, not the directory one stands in."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("an empty name names no directory", param, ctx)
        return super().convert(value, param, ctx)


@dataclass(frozen=True)
class Asked:
    """What the shared options say; field for field their parameters."""

    attacks: tuple[str, ...]
    n: int | None
    eps: float | None
    seed: int
    batch: int
    data: str | None
    layout: Layout | None
    data_root: Path
    fail_under: float | None
    max_drop: float | None
    no_gate: bool
    against: Path | None
    save_adversarial: bool
    lattice: Literal["uint8"] | None
    until_decided: bool
    shard: Shard | None
    resume: bool
    as_json: bool
    out: Path | None

    def __post_init__(self) -> None:
        if (self.fail_under is not None or self.max_drop is not None) and not any_bounded(self.attacks):
            raise UsageFault(
                "a gate on robust accuracy needs an attack within eps", hint=f"--attacks {','.join(DEFAULT)}"
            )
        if self.no_gate and (self.fail_under is not None or self.max_drop is not None):
            raise UsageFault("--no-gate contradicts --fail-under and --max-drop", hint="leave it out")
        if self.until_decided and self.shard:
            raise UsageFault("--until-decided cannot judge a shard", hint="leave out --shard: the run stops early")
        if self.resume and self.out is None:
            raise UsageFault("--resume needs the run to go on with", hint="--out DIR")

    def settings(self, threat_model: ThreatModel, gate: Gate) -> Settings:
        """Return the settings of the run; `threat_model` and `gate` hold where they are silent."""
        asked = Gate(fail_under=self.fail_under, max_drop=self.max_drop)
        return Settings(
            attacks=self.attacks,
            threat_model=threat_model if self.eps is None else ThreatModel(eps=self.eps),
            gate=gate if asked == Gate() and not self.no_gate else asked,
            n=self.n,
            seed=self.seed,
            batch=self.batch,
            against=self.against,
            save_adversarial=self.save_adversarial,
            lattice=self.lattice,
            until_decided=self.until_decided,
            shard=self.shard,
            data=self.data,
            layout=self.layout,
            data_root=self.data_root,
        )


def attack_options(command: Command) -> Command:
    """Add the options of `Asked` to a click command, which gets them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--attacks",
        callback=_attacks,
        default=",".join((CLEAN, *DEFAULT)),
        show_default=True,
        help=f"Attacks, comma-separated: {', '.join(NAMES)}; clean accuracy is always measured.",
    ),
    click.option("--n", type=click.IntRange(min=1), help="Judge the first N images.  [default: all]"),
    click.option("--eps", callback=fraction, help=f"L-infinity radius, as 8/255 or a float.{OWN}"),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**64 - 1),
        default=0,
        show_default=True,
        help="Seed of the attacks' noise.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="Images in one pass; changes memory and speed, never a verdict.",
    ),
    click.option("--data", help=f"An .npz with x and y, an image folder, or a set known by name.{OWN}"),
    click.option(
        "--layout", type=click.Choice(["nchw", "nhwc"]), help="Where the .npz given by --data has its channels."
    ),
    click.option(
        "--data-root",
        type=click.Path(file_okay=False, path_type=Path),
        default=DATA_ROOT,
        show_default=True,
        help="Where data sets known by name lie or are downloaded to.",
    ),
    click.option("--fail-under", callback=fraction, help=f"Least robust accuracy, as 45%.{OWN}"),
    click.option(
        "--max-drop",
        callback=fraction,
        help=f"Largest drop of robust accuracy, as 1%, from the run named by --against, else from {PARENT}, "
        f"judged first; of a model file by --against alone.{OWN}",
    ),
    click.option(
        "--no-gate",
        is_flag=True,
        help="Judge by no gate, also not the subject's own: of few images it decides nothing.",
    ),
    click.option(
        "--against",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Compare image by image with this run directory.",
    ),
    click.option("--save-adversarial", is_flag=True, help="Keep the worst points in evidence.npz."),
    click.option(
        "--lattice",
        type=click.Choice(["uint8"]),
        help="Judge each point found rounded to bytes too; reported beside the score.",
    ),
    click.option(
        "--until-decided", is_flag=True, help="Take the images in random order and stop when the gate is decided."
    ),
    click.option("--shard", callback=_shard, help="Judge one part of the images, as 2/5; merge judges all."),
    click.option("--resume", is_flag=True, help="Go on with the run in --out, or begin it."),
    click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the summary."),
    click.option(
        "--out", type=NewDirectory(), help="Run directory, which must be new or empty.  [default: one in reports/]"
    ),
)
