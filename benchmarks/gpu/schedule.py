"""Parts one after another within a budget, each in a process of its own; none stops the next."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.record import PartRecord, State
from runtime.errors import MissingEnvironment

LEAST = 15.0
"""Seconds under which no part is begun: Python, PyTorch and a first kernel take them."""
OWN = 0.9
"""The share of its limit that a part is told of, so that it ends by itself."""
GRACE = 5.0
"""Seconds between asking a part to end and ending it."""
LINES = 25


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Args:
        name: what it is called.
        share: of the time left to it and those after it, beside theirs.
        command: what is started, given the seconds that it may take and where it leaves its figures.

    """

    name: str
    share: float
    command: Callable[[float, Path], Sequence[str]]


def allotted(left: float, shares: Sequence[float]) -> float:
    """Return the seconds that the first of some parts gets of those left; what it leaves goes to the others."""
    return max(0.0, left) * shares[0] / sum(shares)


def run_parts(
    parts: Sequence[Part],
    budget: float,
    tell: Callable[[tuple[PartRecord, ...]], None],
    *,
    least: float = LEAST,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[PartRecord, ...]:
    """Run the parts in their order.

    Args:
        parts: in the order of their worth.
        budget: seconds for all of them.
        tell: is told of all parts before and after each.
        least: seconds under which none is begun.
        clock: says the time, in seconds.

    """
    began, records = clock(), [PartRecord(name=part.name) for part in parts]
    for number, part in enumerate(parts):
        limit = allotted(budget - (clock() - began), [each.share for each in parts[number:]])
        if limit < least:
            records[number] = PartRecord(name=part.name, state="skipped", reason="no time was left", limit=limit)
            continue
        records[number] = PartRecord(name=part.name, state="running", limit=limit)
        tell(tuple(records))
        records[number] = run_part(part, limit)
        tell(tuple(records))
    tell(tuple(records))
    return tuple(records)


def run_part(part: Part, limit: float) -> PartRecord:
    """Run one part in a process of its own, and all that it starts; end it at its limit, and keep what it found.

    A figure that is no number becomes the word for it, which JSON has none for.
    """
    with tempfile.TemporaryDirectory() as place:
        out, said = Path(place) / "figures.json", Path(place) / "said"
        began = time.monotonic()
        with said.open("wb") as log:
            process = subprocess.Popen(
                list(part.command(OWN * limit, out)), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end(process)
        return PartRecord(
            name=part.name,
            **told(code),
            seconds=round(time.monotonic() - began, 2),
            limit=round(limit, 2),
            figures=json.loads(out.read_bytes(), parse_constant=str) if out.is_file() else {},
            tail=tuple(said.read_text(errors="replace").splitlines()[-LINES:]),
        )


def told(code: int | None) -> dict[str, State | str | int | None]:
    """Return state, reason and exit code of a process that ended with `code`; None: it had to be ended."""
    if code is None:
        return {"state": "timed out", "reason": "its time was up", "exit_code": None}
    state: State = "done" if code == 0 else "not there" if code == MissingEnvironment.exit_code else "failed"
    return {"state": state, "reason": "" if code == 0 else f"exit code {code}", "exit_code": code}


def end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process and of those that it started, which share its group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
