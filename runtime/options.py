"""The options that judging commands share, and what they lead to: a run, its directory, an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from runtime.attacks import DEFAULT, NAMES
from runtime.console import print_summary
from runtime.errors import UsageFault
from runtime.files import check_new_directory
from runtime.progress import progress_on_stderr
from runtime.spec import Fraction, Gate, ThreatModel, to_json
from runtime.verify import Settings, Subject, verify, write_run

if TYPE_CHECKING:
    from runtime.images import Layout

Command = TypeVar("Command", bound=Callable[..., Any])

CLEAN = "clean"
"""Accepted among the attacks: accuracy without any is always measured."""
PARENT = "fp32"
"""The precision that others are compared with: without --against a drop is not asked of it."""
REPORTS = Path("reports")
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
    fail_under: float | None
    max_drop: float | None
    against: Path | None
    save_adversarial: bool
    as_json: bool
    out: Path | None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.against is None:
            raise UsageFault("--max-drop has nothing to compare with", hint="--against DIR, another verify's --out")
        if (self.fail_under is not None or self.max_drop is not None) and not self.attacks:
            raise UsageFault("a gate on robust accuracy needs an attack", hint=f"--attacks {','.join(DEFAULT)}")

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
        EdgeproofError: see `verify` and `write_run`; nothing is left behind then.

    """
    out = asked.out or fresh_directory(subject)
    check_new_directory(out)
    with progress_on_stderr() as progress:
        run = verify(subject, asked.settings(threat_model, _standing_gate(gate, subject, asked)), progress)
    write_run(out, run)
    if asked.as_json:
        click.echo(to_json(run.report), nl=False)
    else:
        print_summary(run.report, out)
    click.get_current_context().exit(EXIT_CODES[run.report.verdict])


def _standing_gate(gate: Gate, subject: Subject, asked: Asked) -> Gate:
    """Return the subject's own gate, without the drop where the subject is what others are compared with."""
    if asked.against is None and subject.session.card().precision == PARENT:
        return Gate(fail_under=gate.fail_under)
    return gate


def fresh_directory(subject: Subject) -> Path:
    """Return reports/<name>-<precision>-<UTC time>."""
    return REPORTS / f"{subject.name}-{subject.session.card().precision}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}"


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--attacks",
        callback=_attacks,
        default=",".join((CLEAN, *DEFAULT)),
        show_default=True,
        help=f"Comma-separated, of {', '.join((CLEAN, *NAMES))}.",
    ),
    click.option("--n", type=click.IntRange(min=1), help="Judge the first N images.  [default: all]"),
    click.option("--eps", callback=_fraction, help="L-infinity radius, 8/255 or a float.  [default: the bundle's]"),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of the noise."),
    click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Images a pass."),
    click.option("--data", help="An .npz with x and y, an image folder, or a known set.  [default: the bundle's]"),
    click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Of the .npz given by --data."),
    click.option("--fail-under", callback=_fraction, help="Least robust accuracy, as 45%."),
    click.option("--max-drop", callback=_fraction, help="Largest drop of robust accuracy against --against, as 1%."),
    click.option(
        "--against",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Compare image by image with this run directory.",
    ),
    click.option("--save-adversarial", is_flag=True, help="Keep the worst points in evidence.npz."),
    click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the summary."),
    click.option("--out", type=click.Path(path_type=Path), help="Run directory.  [default: a fresh one in reports/]"),
)
