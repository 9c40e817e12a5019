"""The cells of a study one after another in this process."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Literal

from pipeline.study.cell import claimed, finished, run_cell
from pipeline.study.plan import Cell, Study
from runtime.errors import EdgeproofError
from runtime.files import write_atomic
from runtime.progress import log

FAILURE = "failure.txt"
State = Literal["finished", "failed", "elsewhere"]


def attempt(study: Study, cell: Cell, out: Path, data_root: Path) -> State:
    """Run one cell, unless it is finished or another process has it; a failure is written down, not raised."""
    directory = out / cell.name
    with claimed(directory) as mine:
        if not mine:
            return "elsewhere"
        if finished(study, directory):
            return "finished"
        (directory / FAILURE).unlink(missing_ok=True)
        try:
            run_cell(study, cell, directory, data_root=data_root)
        except Exception as error:
            message = str(error) if isinstance(error, EdgeproofError) else traceback.format_exc()
            write_atomic(directory / FAILURE, f"{type(error).__name__}: {message}\n".encode())
            log(f"{cell.name} failed: {error}")
            return "failed"
    return "finished"


def run_here(study: Study, cells: list[Cell], out: Path, data_root: Path) -> list[State]:
    """Run the cells in order; return the state of each."""
    states: list[State] = []
    for number, cell in enumerate(cells, 1):
        log(f"cell {number} of {len(cells)}: {cell.name}")
        states.append(attempt(study, cell, out, data_root))
    return states
