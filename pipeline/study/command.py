"""The command `edgeproof study`, which makes a table of runs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from pipeline.recipe.source import checked
from pipeline.study.plan import Cell, Study, expand, load_study
from pipeline.study.publish import TABLE, publish
from pipeline.study.results import read_cell
from pipeline.study.run import Attempt, check_all_unchanged, check_ready, look, run_here, run_on_ray
from pipeline.study.table import Table, by_reason
from runtime.errors import BadInput, EdgeproofError
from runtime.files import check_new_directory
from runtime.options.preparers import data_root_option
from runtime.options.record import NewDirectory
from runtime.report.tables import add_row, new_table
from runtime.terminal.going_on import to_go_on
from runtime.terminal.log import log

WIDTH = 240
"""The width of the console in columns; the figures of a wider table are truncated."""


class UnfinishedStudy(EdgeproofError):
    """Some cells are not in the table, because they failed or another process is still running them."""

    exit_code = 5


@click.command()
@click.argument("study", callback=checked("study"))
@click.option("--out", type=NewDirectory(), help="Directory of the study.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Continue in an existing directory. Finished cells are not repeated.")
@click.option("--table", "only_table", is_flag=True, help="Run nothing; only write the table of the finished cells.")
@click.option("--ray", "address", metavar="ADDRESS", help="Run the cells on a Ray cluster: an address, auto or local.")
@data_root_option
@click.option(
    "--allow-weak-teacher", is_flag=True, help="Continue with teachers whose accuracy under PGD is near chance."
)
def study(
    study: str,
    out: Path | None,
    resume: bool,
    only_table: bool,
    address: str | None,
    data_root: Path,
    allow_weak_teacher: bool,
) -> None:
    """Train and judge every cell of STUDY, which is a name or a .toml file, and print the table.

    Several processes can share one directory: start the same command again with --resume.
    """
    plan = load_study(study)
    out = out or Path("runs") / plan.name
    if not (resume or only_table):
        check_new_directory(out, resumable=True)
    cells = expand(plan)
    check_all_unchanged(plan, cells, out)
    if not only_table:
        check_ready(plan, cells, out, data_root)
    if only_table:
        attempts = look(plan, cells, out)
    elif address:
        attempts = run_on_ray(plan, cells, out, data_root, address, allow_weak_teacher)
    else:
        attempts = run_here(plan, cells, out, data_root, allow_weak_teacher)
    try:
        unfinished = _unfinished(attempts, len(cells))
    except KeyboardInterrupt:
        log.warning(to_go_on(out))
        raise
    print_table(_publish(plan, cells, unfinished, out))
    click.echo(f"table: {out / TABLE}")
    if unfinished:
        states = "\n".join(f"  {line}" for line in by_reason(unfinished))
        raise UnfinishedStudy(
            f"{len(unfinished)} of {len(cells)} cells are not finished:\n{states}",
            hint="run the same command with --resume; finished cells are not repeated",
        )


def _unfinished(attempts: Iterable[Attempt], cells: int) -> dict[str, str]:
    """Follow the attempts as they end; return the unfinished cells and the reasons."""
    unfinished = {}
    for number, attempt in enumerate(attempts, 1):
        log.info(f"cell {number} of {cells}: {attempt.cell} {attempt.state} {attempt.reason}".rstrip())
        if attempt.state != "finished":
            unfinished[attempt.cell] = f"{attempt.state}: {attempt.reason}"
    return unfinished


def _publish(plan: Study, cells: list[Cell], unfinished: dict[str, str], out: Path) -> Table:
    found = []
    for cell in cells:
        with suppress(BadInput):  # a damaged cell counts as not finished
            found.append(read_cell(plan, cell, out / cell.name))
    return publish(plan, [result for result in found if result is not None], unfinished, out / TABLE)


def print_table(table: Table) -> None:
    """Print the table and its differences to stdout."""
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    for heading, rows in ((table.heading, table.rows), (table.difference_heading, table.difference_rows)):
        if rows:
            grid = new_table(heading)
            for row in rows:
                add_row(grid, row)
            console.print(grid)
            console.print()
