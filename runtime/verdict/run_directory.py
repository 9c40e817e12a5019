"""The run directory of verify: run.json, the journal, then the evidence and the report, or shard.json for a shard."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError

from runtime.errors import BadRun, EdgeproofError, MissingEnvironment, UsageFault
from runtime.files import check_new_directory, npz_of, remove_half_written, write_atomic
from runtime.gallery.store import GALLERY, read_gallery
from runtime.images.npz import UNREADABLE, open_npz
from runtime.locks import lock_if_free
from runtime.records.report import REPORT, SHARD, ShardRecord
from runtime.records.request import Request, RunRecord
from runtime.spec import ThreatModel, to_json
from runtime.suite.evidence import Evidence
from runtime.suite.journal import JOURNAL, UNITS, Journal
from runtime.suite.outcome import COUNTS
from runtime.terminal.going_on import to_go_on
from runtime.terminal.log import log
from runtime.verdict.paired import EVIDENCE
from runtime.verdict.shards import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from runtime.records.report import Artifact
    from runtime.verdict.case import Findings, Run

RUN = "run.json"
LEFTOVER = f".{RUN}.*"
"""Temporary files that a power cut may leave when a run has just begun (`files.write_atomic`)."""
ENDS = (REPORT, SHARD)
"""Files that are written last: a directory with one of them is finished."""


def check_out(out: Path, *, resume: bool) -> None:
    """Check, before any work, that a run can begin in `out`, or be resumed there.

    Raises:
        UsageFault: `out` is not empty, and `resume` is not set.
        BadRun: `resume` is set, but `out` does not hold a run.
        MissingEnvironment: its parent directory cannot be written to.

    """
    if not resume or not out.is_dir() or not any(out.iterdir()):
        check_new_directory(out, resumable=True)
    elif not (out / RUN).is_file() and not all(entry.match(LEFTOVER) for entry in out.iterdir()):
        raise BadRun(f"{out} has no {RUN}: there is no run to resume", hint="name the --out of the run")


@contextlib.contextmanager
def open_run(
    out: Path, request: Request, *, resume: bool, made_by: Mapping[str, str | int] | None = None
) -> Iterator[Journal]:
    """Yield the journal of a run that begins in `out`, or is resumed there.

    If the block fails or is interrupted, finished units stay. If it fails and there is none, the run is removed.

    Args:
        out: the run directory.
        request: of the run.
        resume: whether to resume a run that is there.
        made_by: see `Journal`.

    Raises:
        BadRun: the run there is of another request, software or machine, or damaged.
        UsageFault, MissingEnvironment: see `check_out`; or another process is working there, or has just finished.

    """
    check_out(out, resume=resume)
    there = (out / RUN).is_file()
    if there:
        check_same(out, request)
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_run_record(out, request)
    journal = Journal(out, read_request(out).digest(), made_by)
    try:
        if has_ended(out):
            raise UsageFault(f"another process has finished the run in {out}", hint="ask again with --resume")
        remove_half_written(out)
        yield journal
    except (EdgeproofError, OSError):
        if not there and not len(journal):
            journal.remove()
            _remove_begun(out)
        raise
    finally:
        journal.close()


def _remove_begun(out: Path) -> None:
    """Remove run.json, and the directory if it is then empty. A user's files stay."""
    for path in (out / RUN, *out.glob(LEFTOVER)):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        out.rmdir()


def write_run_record(out: Path, request: Request) -> None:
    """Write run.json."""
    write_atomic(out / RUN, to_json(RunRecord(request=request, request_sha256=request.digest())))


def read_request(out: Path) -> Request:
    """Return the request of the run in `out`.

    Raises:
        BadRun: run.json is missing or damaged.

    """
    path = out / RUN
    try:
        record = RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadRun(f"{path} cannot be read: {error.strerror}", hint="name the --out of a verify") from None
    except ValidationError:
        raise BadRun(f"{path} is damaged, or made by another version", hint="begin again in another --out") from None
    if record.request.digest() != record.request_sha256:
        raise BadRun(f"{path} is damaged: its digest is not that of its request", hint="begin again in another --out")
    return record.request


def check_same(out: Path, request: Request) -> None:
    """Raise `BadRun` unless the run in `out` has this request; only the command and the batch may differ."""
    earlier = read_request(out)
    for name in request.unlike(earlier):
        was, now = (_in_words(getattr(each, name)) for each in (earlier, request))
        packed = "the model, or how it is packed (--mean, --std, --bgr, --output), has changed; "
        raise BadRun(
            f"the run in {out} began with {name} {was}, but this command has {now}",
            hint=f"{packed if name.endswith('_sha256') else ''}give the same, or begin in another --out",
        )


def _in_words(value: Any) -> str:
    """Return a field of a request in words: the names of attacks, or the values that are set in a record."""
    if isinstance(value, ThreatModel):
        return str(value)
    if isinstance(value, BaseModel):
        return " ".join(f"{name}={each}" for name, each in value if each is not None) or "none"
    if isinstance(value, tuple):
        return ", ".join(str(getattr(each, "name", each)) for each in value) or "none"
    return "none" if value is None else str(value)


def finished(out: Path, request: Request) -> bool:
    """Return whether the run of this request is finished in `out`; remove its units if a killed process left them.

    A process that still works there removes them itself. They stay if the directory cannot be written to.

    Raises:
        BadRun: the run there is of another request.

    """
    if not has_ended(out):
        return False
    check_same(out, request)
    if (out / JOURNAL).is_file():
        with contextlib.suppress(MissingEnvironment), lock_if_free(out / JOURNAL) as mine:
            if mine:
                remove_half_written(out)
                shutil.rmtree(out / UNITS, ignore_errors=True)
    return True


def has_ended(out: Path) -> bool:
    """Return whether one of ENDS is there."""
    return any((out / name).is_file() for name in ENDS)


def finish_shard(out: Path, findings: Findings, journal: Journal) -> None:
    """Write the files for merge: all arrays of the evidence, the gallery, then shard.json."""
    outcome = findings.outcome
    record = ShardRecord(
        request_sha256=read_request(out).digest(),
        circumstances=findings.circumstances,
        attacks=outcome.attacks,
        eps_curve=outcome.eps_curve,
        far=outcome.far,
        **{name: getattr(outcome, name) for name in COUNTS},
        paired=findings.paired,
    )
    write_atomic(out / EVIDENCE, npz_of(outcome.evidence.everything()))
    write_atomic(out / GALLERY, npz_of(findings.gallery.arrays()))
    write_atomic(out / SHARD, to_json(record))
    journal.drop_units()


def finish_run(
    out: Path, run: Run, journal: Journal | None = None, *, formats: Callable[[Path, Run], Iterable[str]]
) -> None:
    """Write run.json if it is missing, evidence.npz, gallery.npz, the other formats, and last report.json.

    Args:
        out: the run directory.
        run: the finished run.
        journal: of a run that was attacked here; its units are removed.
        formats: writes the other formats into the directory, and returns a line for each file that it could not write.

    """
    if not (out / RUN).is_file():
        write_run_record(out, run.report.request)
    arrays = run.evidence.arrays(adversarial=run.report.request.save_adversarial)
    write_atomic(out / EVIDENCE, npz_of({**arrays, **_engines(run.report.artifact)}))
    write_atomic(out / GALLERY, npz_of(run.gallery.arrays()))
    for line in formats(out, run):
        log.warning(line)
    write_atomic(out / REPORT, to_json(run.report))
    if journal:
        journal.drop_units()


def _engines(artifact: Artifact) -> dict[str, Any]:
    """Return texts for the evidence that name judge and lender, if another engine lent or a process judged."""
    judge, command = f"{artifact.backend}/{artifact.provider}", artifact.judge_command
    names = {"judge": judge, "gradients_by": artifact.lender} if artifact.lender or command else {}
    if command:
        names |= {"judge_version": command.version, "judge_command": command.command}
    return {name: np.array(text) for name, text in names.items() if text}


def read_part(directory: Path) -> Part:
    """Read a finished shard.

    Raises:
        BadRun: the directory is damaged, not finished, or not a shard.

    """
    request, path = read_request(directory), directory / SHARD
    if not path.is_file():
        if request.shard is None:
            raise BadRun(f"{directory} is a whole run, not a shard", hint="merge takes what verify --shard writes")
        raise BadRun(f"{directory} is not finished: it has no {SHARD}", hint="finish it: verify --shard ... --resume")
    try:
        record = ShardRecord.model_validate_json(path.read_bytes())
        with open_npz(directory / EVIDENCE) as file:
            evidence = Evidence.restored(dict(file))
        gallery = read_gallery(directory, hint="run this shard again")
    except (*UNREADABLE, KeyError, ValidationError) as error:
        raise BadRun(f"{directory} is damaged: {error}", hint="run this shard again") from None
    if record.request_sha256 != request.digest():
        raise BadRun(f"{path} belongs to another request than {RUN}", hint="run this shard again")
    if gallery is None:
        raise BadRun(f"{directory} is damaged: it has no {GALLERY}", hint="run this shard again")
    return Part(str(directory), request, record, evidence, gallery)


@contextlib.contextmanager
def resumable(out: Path, baseline: Path | None = None) -> Iterator[None]:
    """Say how to resume if the block is interrupted, or fails because of the machine: a full disk, no memory.

    Args:
        out: the directory of the run; resuming it resumes `baseline` first.
        baseline: the directory of the baseline of a drop, which is judged first.

    """
    try:
        yield
    except (KeyboardInterrupt, MemoryError, MissingEnvironment, OSError):
        if any((directory / JOURNAL).is_file() for directory in (out, baseline) if directory):
            log.warning(to_go_on(out))
        raise
