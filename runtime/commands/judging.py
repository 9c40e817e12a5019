"""From what was asked to a verdict: a run in its directory, its figures printed, an exit code."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.errors import UsageFault
from runtime.machine.card import made_by
from runtime.progress import log, progress_on_stderr
from runtime.records.report import load_report
from runtime.report.account import Account
from runtime.report.console import print_summary
from runtime.report.formats import write_formats
from runtime.spec import PARENT, Gate, to_json
from runtime.suite.plan import mandatory_attacks
from runtime.verdict.case import Run, prepare
from runtime.verdict.run_directory import (
    check_out,
    finish_run,
    finish_shard,
    finished,
    open_run,
    read_request,
    resumable,
)

if TYPE_CHECKING:
    from runtime.commands.attack_options import Asked
    from runtime.records.report import Report
    from runtime.spec import ThreatModel
    from runtime.verdict.subject import Settings, Subject

REPORTS = Path("reports")
EXIT_CODES = {"passed": 0, "failed": 1, "inconclusive": 5}


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


def write_all(out: Path, run: Run) -> list[str]:
    """Write every format of a run's report; return a line for each that could not be written."""
    return write_formats(out, Account(run.report, run.gallery))


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
    with resumable(out), open_run(out, case.request, resume=resume, made_by=where) as journal:
        if len(journal):
            log(f"going on after {len(journal)} units")
        case = replace(case, request=read_request(out))  # the same but for what changes no figure
        with progress_on_stderr() as progress:
            findings = case.attack(progress, journal, started=journal.started)
        if settings.shard:
            finish_shard(out, findings, journal)
            return None
        run = case.judge(findings)
        finish_run(out, run, journal, formats=write_all)
    return run.report


def against_parent(subject: Subject, settings: Settings, asked: Asked, out: Path) -> Settings:
    """Return the settings with something to compare with, where a drop is to be judged and nothing is named.

    That is the same subject in PARENT, judged first by the same request in a run directory beside `out`; what the
    union adds is asked of it too, so that the drop is the artifact's and not the attacks'. Of PARENT itself the
    subject's own gate asks no drop: see `prepare`.

    Raises:
        UsageFault: a drop is asked for by hand and there is no PARENT to measure it from, or the run is one in which
            it cannot be judged first.

    """
    card = subject.session.card()
    precision = card.precision
    if settings.gate.max_drop is None or settings.against:
        return settings
    if precision == PARENT and asked.max_drop is None:
        return settings
    earlier = "an earlier run" if precision == PARENT else f"a verify with --precision {PARENT}"
    hint = f"--against DIR, the --out of {earlier}"
    if settings.until_decided or settings.shard:
        raise UsageFault("--max-drop of a part of the images needs a run to compare with", hint=hint)
    if subject.parent is None:
        if asked.max_drop is None:
            return settings
        raise UsageFault(f"--max-drop has nothing to compare {precision} with", hint=hint)
    beside = out.absolute().parent / f"{out.absolute().name}-{PARENT}"
    check_out(beside, resume=asked.resume)
    log(f"first {PARENT}, to measure the drop from: {beside}")
    besides = tuple(attack.name for attack in mandatory_attacks(settings.attacks, len(subject.classes), card.facts))
    alike = replace(settings, gate=Gate(), attacks=(*settings.attacks, *besides))
    run_in(beside, subject.parent(), alike, resume=asked.resume)
    return replace(settings, against=beside)


def fresh_directory(name: str, precision: str) -> Path:
    """Return reports/<name>-<precision>-<UTC time>."""
    return REPORTS / f"{name}-{precision}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}"
