"""Options of a run and its report that do not affect the verdict: where they are written, and how they are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from runtime.options.record import NewDirectory
from runtime.records.options import Option
from runtime.spec import Frozen


class ReportOptions(Frozen):
    """How a report is printed, and where it is written; none of this is recorded."""

    as_json: Annotated[bool, Option("Print report.json instead of the summary.", flag="--json")] = False
    out: Annotated[
        Path | None,
        Option("Run directory, which must be new or empty.  [default: one in reports/]", type=NewDirectory()),
    ] = None


class RunOptions(ReportOptions):
    """The same for a run, which can also be resumed."""

    resume: Annotated[bool, Option("Continue the run in --out; if there is none, start one.")] = False
