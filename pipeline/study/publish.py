"""The results of a study: the table as Markdown, CSV and HTML, the plots, and one small JSON file per cell."""

from __future__ import annotations

from pathlib import Path

from pipeline.study.plan import Study
from pipeline.study.plots import Picture, pictures
from pipeline.study.results import CellResult, gather
from pipeline.study.table import Table, build_table, to_csv, to_markdown
from runtime.files import write_atomic
from runtime.report.page import environment
from runtime.spec import to_json

FOLDER = Path(__file__).parent
TABLE = "table"
"""The subdirectory of a study's directory with the table, which can be kept without the runs."""


def publish(study: Study, results: list[CellResult], unfinished: dict[str, str], out: Path) -> Table:
    """Write table.md, table.csv, study.html, the pictures and cells/NAME.json into `out`; return the table."""
    table, drawn = build_table(study, results, unfinished), pictures(gather(results))
    for result in results:
        write_atomic(out / "cells" / f"{result.cell}.json", to_json(result))
    for picture in drawn:
        write_atomic(out / f"{picture.name}.png", picture.png)
    write_atomic(out / "table.csv", to_csv(study, results).encode())
    write_atomic(out / "table.md", to_markdown(table, tuple(f"{picture.name}.png" for picture in drawn)).encode())
    write_atomic(out / "study.html", page(table, drawn).encode())
    return table


def page(table: Table, drawn: tuple[Picture, ...]) -> str:
    """Return one self-contained page; every text is escaped."""
    return environment(FOLDER).get_template("page.html.j2").render(table=table, pictures=drawn)
