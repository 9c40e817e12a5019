"""The options that judging commands share, and what they lead to: a run, its directory, an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource
from pydantic import TypeAdapter, ValidationError

from runtime.attacks import ATTACKS, DEFAULT, NAMES, any_bounded
from runtime.console import print_summary
from runtime.device import made_by
from runtime.errors import UsageFault
from runtime.images import DATA_ROOT
from runtime.progress import log, progress_on_stderr
from runtime.report_schema import Report, load_report
from runtime.request import PARENT, Settings, Subject
from runtime.run_directory import check_out, finish_run, finish_shard, finished, interruptible, open_run, read_request
from runtime.shards import Shard
from runtime.spec import Fraction, Gate, ThreatModel, to_json
from runtime.verify import Run, prepare

if TYPE_CHECKING:
    from runtime.images import Layout

Command = TypeVar("Command", bound=Callable[..., Any])

CLEAN = "clean"
"""Accepted among the attacks: accuracy without any is always measured."""
REPORTS = Path("reports")
NO_GRADIENT = "none"
BLACK_BOX = tuple(name for name, attack in ATTACKS.items() if not attack.uses_gradient)
OWN = "  [default: the subject's own]"
EXIT_CODES = {"passed": 0, "failed": 1, "inconclusive": 5}


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
            gate=gate if asked == Gate() else asked,
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


def judge(subject: Subject, asked: Asked, *, threat_model: ThreatModel, gate: Gate) -> None:
    """Run the suite in a run directory, print the figures, exit with the verdict's code; 0 for a shard.

    Args:
        subject: what is judged.
        asked: the shared options.
        threat_model: where --eps is not given.
        gate: where neither --fail-under nor --max-drop is given.

    Raises:
        UsageFault: see `against_parent`, `prepare` and `open_run`.
        EdgeproofError: see `prepare` and `Case.attack`; a directory in which nothing was done vanishes.

    """
    out = asked.out or fresh_directory(subject.name, subject.session.card().precision)
    check_out(out, resume=asked.resume)
    settings = asked.settings(threat_model, gate)
    settings = against_parent(subject, settings, asked, out)
    report = run_in(out, subject, settings, resume=asked.resume)
    if report is None:
        log(f"shard {asked.shard} is done; `edgeproof merge` judges all: {out}")
        return
    show(report, out, as_json=asked.as_json)


def show(report: Report, out: Path, *, as_json: bool) -> None:
    """Print a report, and exit with the verdict's code."""
    if as_json:
        click.echo(to_json(report), nl=False)
    else:
        print_summary(report, out)
    click.get_current_context().exit(EXIT_CODES[report.verdict])


def run_in(out: Path, subject: Subject, settings: Settings, *, resume: bool) -> Report | None:
    """Run the suite in `out`, or go on there; return the report, None for a shard.

    Raises:
        EdgeproofError: see `judge`.

    """
    case = prepare(subject, settings)
    if resume and finished(out, case.request):
        log(f"{out} is finished already")
        return None if settings.shard else load_report(out)
    where = made_by(subject.libraries) | {"accelerator": subject.session.card().device}
    with interruptible(out), open_run(out, case.request, resume=resume, made_by=where) as journal:
        if len(journal):
            log(f"going on after {len(journal)} units")
        case = replace(case, request=read_request(out))  # the same but for what changes no figure
        with progress_on_stderr() as progress:
            findings = case.attack(progress, journal, started=journal.started)
        if settings.shard:
            finish_shard(out, findings, journal)
            return None
        report = case.report(findings)
        finish_run(out, Run(report, findings.outcome.evidence), journal)
    return report


def against_parent(subject: Subject, settings: Settings, asked: Asked, out: Path) -> Settings:
    """Return the settings with something to compare with, where a drop is to be judged and nothing is named.

    That is the same subject in PARENT, judged first by the same request in a run directory beside `out`.

    Raises:
        UsageFault: the subject has no PARENT, or the run is one in which it cannot be judged first.

    """
    precision = subject.session.card().precision
    if settings.gate.max_drop is None or settings.against or precision == PARENT:
        return settings
    hint = f"--against DIR, the --out of a verify with --precision {PARENT}"
    if settings.until_decided or settings.shard:
        raise UsageFault("--max-drop of a part of the images needs a run to compare with", hint=hint)
    if subject.parent is None:
        if asked.max_drop is None:
            return settings
        raise UsageFault(f"--max-drop has nothing to compare {precision} with", hint=hint)
    beside = out.absolute().parent / f"{out.absolute().name}-{PARENT}"
    check_out(beside, resume=asked.resume)
    log(f"first {PARENT}, to measure the drop from: {beside}")
    run_in(beside, subject.parent(), replace(settings, gate=Gate()), resume=asked.resume)
    return replace(settings, against=beside)


def fresh_directory(name: str, precision: str) -> Path:
    """Return reports/<name>-<precision>-<UTC time>."""
    return REPORTS / f"{name}-{precision}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}"


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
        f"judged first.{OWN}",
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
