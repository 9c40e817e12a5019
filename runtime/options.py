"""The options that judging commands share, and what they lead to: a run, its directory, an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from runtime.attacks import DEFAULT, NAMES, any_bounded
from runtime.console import print_summary
from runtime.errors import UsageFault
from runtime.files import check_new_directory
from runtime.images import DATA_ROOT
from runtime.progress import progress_on_stderr
from runtime.spec import Fraction, Gate, ThreatModel, to_json
from runtime.verify import PARENT, Settings, Subject, verify, write_run

if TYPE_CHECKING:
    from runtime.images import Layout

Command = TypeVar("Command", bound=Callable[..., Any])

CLEAN = "clean"
"""Accepted among the attacks: accuracy without any is always measured."""
REPORTS = Path("reports")
OWN = "  [default: the subject's own]"
EXIT_CODES = {"passed": 0, "failed": 1, "inconclusive": 5}


def _fraction(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a number from 0 to 1, also written as '8/255' or '45%'; anything else is a usage error."""
    if value is None:
        return None
    try:
        return TypeAdapter(Fraction).validate_python(value)
    except ValidationError:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 1, like 8/255, 0.03 or 45%") from None


def _attacks(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the NAMES asked for, in order and once each; an unknown name is a usage error."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in (CLEAN, *NAMES):
            raise click.BadParameter(f"{name!r} is not an attack; known: {', '.join((CLEAN, *NAMES))}")
    return tuple(name for name in names if name in NAMES)


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
    against: Path | None
    save_adversarial: bool
    as_json: bool
    out: Path | None

    def __post_init__(self) -> None:
        if (self.fail_under is not None or self.max_drop is not None) and not any_bounded(self.attacks):
            raise UsageFault(
                "a gate on robust accuracy needs an attack within eps", hint=f"--attacks {','.join(DEFAULT)}"
            )

    def settings(self, threat_model: ThreatModel, gate: Gate) -> Settings:
        """Return the settings of the run; `threat_model` and `gate` hold where they are silent."""
        asked = Gate(fail_under=self.fail_under, max_drop=self.max_drop)
        return Settings(
            attacks=self.attacks,
            threat_model=threat_model if self.eps is None else ThreatModel(eps=self.eps),
            gate=gate if asked == Gate() else asked,
            n=self.n,
            seed=self.seed,
            batch=self.batch,
            against=self.against,
            save_adversarial=self.save_adversarial,
            data=self.data,
            layout=self.layout,
            data_root=self.data_root,
        )

    def check_drop(self, precision: str) -> None:
        """Raise `UsageFault` where --max-drop is asked of a precision that has nothing to be compared with."""
        if self.max_drop is not None and self.against is None and precision != PARENT:
            raise UsageFault(
                f"--max-drop has nothing to compare {precision} with",
                hint=f"--against DIR, the --out of a verify with --precision {PARENT}",
            )


def attack_options(command: Command) -> Command:
    """Add the options of `Asked` to a click command, which gets them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def judge(subject: Subject, asked: Asked, *, threat_model: ThreatModel, gate: Gate) -> None:
    """Run the suite, write the run directory, print the figures, exit with the verdict's code.

    Args:
        subject: what is judged.
        asked: the shared options.
        threat_model: where --eps is not given.
        gate: where neither --fail-under nor --max-drop is given.

    Raises:
        UsageFault: see `Asked.check_drop`.
        EdgeproofError: see `verify` and `write_run`; nothing is left behind then.

    """
    asked.check_drop(subject.session.card().precision)
    out = asked.out or fresh_directory(subject)
    check_new_directory(out)
    with progress_on_stderr() as progress:
        run = verify(subject, asked.settings(threat_model, gate), progress)
    write_run(out, run)
    if asked.as_json:
        click.echo(to_json(run.report), nl=False)
    else:
        print_summary(run.report, out)
    click.get_current_context().exit(EXIT_CODES[run.report.verdict])


def fresh_directory(subject: Subject) -> Path:
    """Return reports/<name>-<precision>-<UTC time>."""
    return REPORTS / f"{subject.name}-{subject.session.card().precision}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}"


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--attacks",
        callback=_attacks,
        default=",".join((CLEAN, *DEFAULT)),
        show_default=True,
        help=f"Attacks, comma-separated: {', '.join(NAMES)}; clean accuracy is always measured.",
    ),
    click.option("--n", type=click.IntRange(min=1), help="Judge the first N images.  [default: all]"),
    click.option("--eps", callback=_fraction, help=f"L-infinity radius, as 8/255 or a float.{OWN}"),
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
    click.option("--fail-under", callback=_fraction, help=f"Least robust accuracy, as 45%.{OWN}"),
    click.option(
        "--max-drop",
        callback=_fraction,
        help=f"Largest drop of robust accuracy from the run named by --against, as 1%.{OWN}",
    ),
    click.option(
        "--against",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Compare image by image with this run directory.",
    ),
    click.option("--save-adversarial", is_flag=True, help="Keep the worst points in evidence.npz."),
    click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the summary."),
    click.option(
        "--out", type=NewDirectory(), help="Run directory, which must be new or empty.  [default: one in reports/]"
    ),
)
