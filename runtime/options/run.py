"""What a run and its report are asked for beside the verdict: where they go, and how they are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from runtime.options.record import NewDirectory
from runtime.records.options import Option
from runtime.spec import Frozen


class ReportOptions(Frozen):
    """What a report is printed as and written to; none of it is recorded."""

    as_json: Annotated[bool, Option("Print report.json instead of the summary.", flag="--json")] = False
    out: Annotated[
        Path | None,
        Option("Run directory, which must be new or empty.  [default: one in reports/]", type=NewDirectory()),
    ] = None


class RunOptions(ReportOptions):
    """The same of a run, which can go on where it was stopped."""

    resume: Annotated[bool, Option("Go on with the run in --out, or begin it.")] = False
