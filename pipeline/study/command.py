"""`edgeproof study`: a table of runs."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.study.cell import check_unchanged
from pipeline.study.plan import expand, load_study
from pipeline.study.run import run_here
from runtime.files import check_new_directory
from runtime.images import DATA_ROOT
from runtime.options import NewDirectory


@click.command()
@click.argument("study")
@click.option("--out", type=NewDirectory(), help="Directory of the study; by default runs/NAME.")
@click.option("--resume", is_flag=True, help="Go on in a directory that exists; finished cells are not repeated.")
@click.option("--data-root", type=click.Path(path_type=Path, file_okay=False), default=DATA_ROOT, show_default=True)
def study(study: str, out: Path | None, resume: bool, data_root: Path) -> None:
    """Run every cell of STUDY."""
    plan = load_study(study)
    out = out or Path("runs") / plan.name
    if not resume:
        check_new_directory(out)
    cells = expand(plan)
    for cell in cells:
        check_unchanged(plan, cell, out / cell.name)
    click.echo(str(run_here(plan, cells, out, data_root)))
