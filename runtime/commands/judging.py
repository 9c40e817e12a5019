"""Judges a subject in a run directory, prints the figures, and exits with the verdict's code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.checks.claim import check_claim
from runtime.errors import UsageFault
from runtime.estimate.announcement import announce
from runtime.files import check_writable
from runtime.machine.card import int8_overflows, made_by
from runtime.records.report import load_report
from runtime.report.account import Account
from runtime.report.console import print_summary
from runtime.report.formats import write_formats
from runtime.spec import PARENT, Gate, to_json
from runtime.terminal.log import log
from runtime.terminal.progress import progress_on_stderr
from runtime.verdict.case import plan_for, prepare_case
from runtime.verdict.options import check_decidable
from runtime.verdict.paired import check_askable, read_reference
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
    from collections.abc import Callable

    from runtime.options.run import RunOptions
    from runtime.records.report import Report
    from runtime.session import SessionCard
    from runtime.verdict.case import Case, Run
    from runtime.verdict.options import VerifyOptions
    from runtime.verdict.subject import Subject

    Writing = Callable[[Path, Run], list[str]]
    """Writes files made from a run's report into its directory; returns a line for each file that failed."""

REPORTS = Path("reports")
EXIT_CODES = {"measured": 0, "passed": 0, "failed": 1, "inconclusive": 5}


@dataclass(frozen=True)
class Directories:
    """The directory of a run, and that of its baseline, a run of PARENT that is judged first; None without one."""

    out: Path
    baseline: Path | None


def check_asked(options: VerifyOptions, run: RunOptions, *, several: bool = False) -> None:
    """Check the options before any work, as far as that is possible without the subject.

    Args:
        options: of the verdict.
        run: of the run.
        several: whether --out is to hold several runs.

    Raises:
        UsageFault: --resume without --out, --out is not empty, or --until-decided with --no-gate.
        BadRun: --resume is given, but --out does not hold a run.
        BadData: the run to compare with is damaged, or cannot match the options.
        MissingEnvironment: the run directory cannot be written to.

    """
    if run.resume and run.out is None:
        raise UsageFault("--resume needs the directory of the run", hint="name it with --out DIR")
    if options.no_gate:
        check_decidable(options, Gate())
    if run.out is None:
        check_writable(REPORTS)
    elif not (several and run.resume):
        check_out(run.out, resume=run.resume)
    if options.against:
        check_askable(options, read_reference(options.against))


def choose_directories(
    options: VerifyOptions, run: RunOptions, *, name: str, precision: str, gate: Gate, has_parent: bool
) -> Directories:
    """Return the directories of a run, before any session is opened.

    If the gate limits a drop and no run to compare with is named, the same subject in PARENT is judged first, in a
    directory beside the run's. For PARENT itself, the subject's own gate limits no drop (`applicable_gate`).

    Args:
        options: of the verdict.
        run: the run's directory, and whether to resume it.
        name: the subject's name.
        precision: the subject's precision.
        gate: the subject's own gate.
        has_parent: whether the subject can be judged in PARENT.

    Raises:
        UsageFault: --max-drop has no baseline: the subject has no PARENT, or the run takes only part of the images; or
            --until-decided is given without a gate.
        EdgeproofError: see `check_out`.

    """
    out = run.out or fresh_directory(name, precision)
    check_out(out, resume=run.resume)
    check_decidable(options, options.gate_or(gate))
    by_hand = options.max_drop is not None
    if options.gate_or(gate).max_drop is None or options.against or (precision == PARENT and not by_hand):
        return Directories(out, None)
    earlier = "an earlier run" if precision == PARENT else f"a verify with --precision {PARENT}"
    hint = f"--against DIR, the --out of {earlier}"
    if options.until_decided or options.shard:
        raise UsageFault("--max-drop on a part of the images needs a run to compare with", hint=hint)
    if not has_parent:
        if by_hand:
            raise UsageFault(f"--max-drop has nothing to compare {precision} with", hint=hint)
        return Directories(out, None)
    baseline = out.absolute().parent / f"{out.absolute().name}-{PARENT}"
    check_out(baseline, resume=run.resume)
    return Directories(out, baseline)


def write_all(out: Path, run: Run) -> list[str]:
    """Write every format of a run's report; return a line for each format that failed."""
    return write_formats(out, Account(run.report, run.gallery))


def judge_subject(
    subject: Subject,
    options: VerifyOptions,
    run: RunOptions,
    directories: Directories,
    write: Writing | None = None,
) -> None:
    """Run the suite in a run directory, print the figures, and exit with the verdict's code; 0 for a shard.

    Args:
        subject: what is judged.
        options: of the verdict.
        run: how to print the report, and whether to resume a run.
        directories: of the run and of its baseline, which is judged first if there is one.
        write: writes the files that are made from the report.

    Raises:
        UsageFault: see `prepare_case` and `open_run`.
        EdgeproofError: see `prepare_case` and `Case.attack`. A directory without any finished work is removed.

    """
    report = judged(subject, options, directories, resume=run.resume, write=write or write_all)
    if report is None:
        log.info(f"shard {options.shard} is done in {directories.out}; `edgeproof merge` judges all shards together")
        return
    show(report, directories.out, as_json=run.as_json)


def judged(
    subject: Subject, options: VerifyOptions, directories: Directories, *, resume: bool, write: Writing | None = None
) -> Report | None:
    """Run the suite in a run directory and return its report, None for a shard; raises as `judge_subject` does."""
    with resumable(directories.out, directories.baseline):
        return _judged(subject, options, directories, resume=resume, write=write or write_all)


def _judged(
    subject: Subject,
    options: VerifyOptions,
    directories: Directories,
    *,
    resume: bool,
    write: Writing,
) -> Report | None:
    """Judge the baseline if there is one, then the run; return the run's report, None for a shard."""
    baseline, plan = directories.baseline, plan_for(subject, options)
    if baseline:
        assert subject.parent is not None
        log.info(f"verifying {PARENT} first, as the baseline for --max-drop: {baseline}")
        parent = subject.parent()
        parents_plan = plan.for_parent(parent.session.card())
        same = {"attacks": tuple(parents_plan.asked), "fail_under": None, "max_drop": None, "no_gate": True}
        run_in(baseline, prepare_case(parent, options.model_copy(update=same), parents_plan), resume=resume)
        options = options.model_copy(update={"against": baseline})
    return run_in(directories.out, prepare_case(subject, options, plan), resume=resume, write=write)


def show(report: Report, out: Path, *, as_json: bool) -> None:
    """Print a report, and exit with the verdict's code."""
    if as_json:
        click.echo(to_json(report), nl=False)
    else:
        print_summary(report, out)
    click.get_current_context().exit(EXIT_CODES[report.verdict])


def run_in(out: Path, case: Case, *, resume: bool, write: Writing = write_all) -> Report | None:
    """Run the suite in `out`, or resume it there; return the report, None for a shard.

    Raises:
        EdgeproofError: see `judge_subject`.

    """
    shard = case.request.shard
    if resume and finished(out, case.request):
        log.info(f"the run in {out} is already finished")
        return None if shard else load_report(out)
    warn_of_gate(case)
    warn_of_arithmetic(case.subject.session.card())
    where = made_by(case.subject.libraries) | case.subject.accelerators | case.sampled
    with open_run(out, case.request, resume=resume, made_by=where) as journal:
        if len(journal):
            log.info(f"resuming: {len(journal)} units of work are done")
        announce(case, journal.done)
        with progress_on_stderr() as progress:
            findings = case.attack(progress, journal, started=journal.started)
        if shard:
            finish_shard(out, findings, journal)
            return None
        recorded = replace(case, request=read_request(out))  # equal, except for fields that change no figure
        run = recorded.conclude(findings)
        finish_run(out, run, journal, formats=write)
    return run.report


def warn_of_gate(case: Case) -> None:
    """Warn, before the first attack, of reasons why the gate cannot pass, or cannot fail, whatever the attacks find."""
    request = case.request
    short = [each.message for each in check_claim(request) if each.state == "found" and each.blocking]
    if request.gate != Gate() and not case.plan.searches_by_gradient and not request.accept_blind_evidence:
        short.append("no attack follows a gradient, which is weak evidence (--accept-blind-evidence lets it pass)")
    cannot = "cannot pass its gate" if request.gate == Gate(fail_under=0) else "cannot pass its gate, only fail it"
    for message in short:
        log.warning(f"this run {cannot}: {message}; --no-gate only measures")
    if request.gate == Gate(fail_under=0):
        log.warning("a gate of 0 % fails no model: no robust accuracy is under it; ask for more, as --fail-under 45%")


def warn_of_arithmetic(card: SessionCard) -> None:
    """Warn, before the first attack, if int8 is judged with sums that overflow here, but not on a device."""
    if card.facts.quantised and (card.backend, card.provider) == ("ort", "cpu") and int8_overflows():
        log.warning(
            "int8 sums can overflow on this processor, which lacks VNNI: the verdict holds for this arithmetic only; "
            "judge on the device, or on a processor with VNNI"
        )


def fresh_directory(name: str, precision: str) -> Path:
    """Return reports/<name>-<precision>-<UTC time>."""
    return REPORTS / f"{name}-{precision}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}"
