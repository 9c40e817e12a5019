"""A comparison as text for a terminal, as Markdown, HTML, CSV and JSON. The tables are made from one grid of texts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from runtime import markdown
from runtime.compare.plot import MARKS, plot
from runtime.csv_table import csv_table
from runtime.errors import MissingEnvironment
from runtime.report.formats import INSTALL
from runtime.report.phrases import BYTES, STAGE, WORST
from runtime.report.tables import add_row, new_table, print_line
from runtime.spec import to_json
from runtime.words import interval, percent, radius, signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.compare.comparison import Against, Comparison, Figure, Side

FOLDER = Path(__file__).parent
ABSENT = "-"
FILE_WIDTH = 160
"""The width in columns of a text file; with many runs, its rows take more lines."""

WIDE = 27
"""The columns that a figure and its interval need on one line. With fewer, the interval goes below."""


class Row(NamedTuple):
    """A row of the table: its name and a cell for each run. `begins`: a part of the table begins here."""

    name: str
    cells: tuple[str, ...]
    begins: bool = False


def grid(comparison: Comparison) -> list[Row]:
    """Return the rows: what each run attacked, its accuracies, and its differences from the first run."""
    runs = comparison.runs
    return [
        *(Row(name, tuple(say(run) for run in runs)) for name, say in WHAT.items()),
        *([Row(LATENCY, tuple(map(_latency, runs)), begins=True)] if any(run.latency_ms for run in runs) else []),
        *(Row(name, tuple(_accuracy(run, name) for run in runs), not number)
          for number, name in enumerate(figure_names(comparison))),
        *(Row(name, (ABSENT, *(say(run.against) if run.against else ABSENT for run in runs[1:])), not number)
          for number, (name, say) in enumerate(AGAINST.items())),
    ]  # fmt: skip


def folded(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of WHAT in which all cells are equal, and all other rows."""
    same = [row for row in rows if row.name in WHAT and len(set(row.cells)) == 1]
    return same, [row for row in rows if row not in same]


def figure_names(comparison: Comparison) -> list[str]:
    """Return the names of all figures: attacks in the order in which runs name them, then the worst case."""
    names = dict.fromkeys(figure.name for run in comparison.runs for figure in run.figures)
    return [name for name in names if name not in (WORST, BYTES)] + [name for name in (WORST, BYTES) if name in names]


def remarks(comparison: Comparison) -> list[str]:
    """Return the notes below the table."""
    first, *others = comparison.runs
    said = []
    for run in others:
        notes = run.against.notes if run.against else (f"not matched image by image with {first.run}: {run.unmatched}",)
        said += [f"{run.run}: {note}" for note in notes]
    return said


def print_text(comparison: Comparison, console: Console) -> None:
    """Print the table and the remarks."""
    apart = " (" if console.width >= WIDE * (1 + len(comparison.runs)) else "\n("
    table = new_table(("", *(run.run for run in comparison.runs)))
    for row in grid(comparison):
        if row.begins:
            add_row(table, ())
        style = "bold" if row.name in (WORST, CHANGE) else None
        add_row(table, (row.name, *(cell.replace(" (", apart) for cell in row.cells)), style)
    console.print(table)
    print_line(console, EXPLAINED, "dim")
    for remark in remarks(comparison):
        print_line(console, f"note: {remark}")


def text(comparison: Comparison) -> str:
    """Return the text of `print_text`, for a file."""
    buffer = io.StringIO()
    print_text(comparison, Console(file=buffer, width=FILE_WIDTH, highlight=False))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Return a table in GitHub's Markdown, with every text from outside escaped."""
    heading = ["", *(markdown.escape(run.run) for run in comparison.runs)]
    rows = [[markdown.escape(word) for word in (row.name, *row.cells)] for row in grid(comparison)]
    notes = "\n".join(f"- {markdown.escape(remark)}" for remark in remarks(comparison))
    return "\n\n".join(filter(None, (markdown.table(heading, rows, left=1), f"{EXPLAINED}.", notes))) + "\n"


def as_html(comparison: Comparison) -> str:
    """Return a self-contained page, with every text escaped.

    Raises:
        MissingEnvironment: jinja2 is not installed.

    """
    from runtime.report.page import environment

    try:
        page = environment(FOLDER).get_template("page.html.j2")
    except ModuleNotFoundError as error:
        raise MissingEnvironment(f"a page needs {error.name}", hint=INSTALL) from None
    same, rows = folded(grid(comparison))
    return page.render(
        names=("", *(run.run for run in comparison.runs)),
        plot=plot(comparison, [name for name in figure_names(comparison) if STAGE not in name]),
        marks=MARKS,
        same=same,
        rows=rows,
        strong=(WORST, CHANGE),
        explained=EXPLAINED,
        remarks=remarks(comparison),
    )


def as_json(comparison: Comparison) -> str:
    """Return the record as JSON."""
    return to_json(comparison).decode()


def as_csv(comparison: Comparison) -> str:
    """Return a line for every figure of every run: fractions, and counts of images that both runs attacked."""
    lines: list[tuple[str | float | None, ...]] = []
    lent = any(run.gradient_backend for run in comparison.runs)
    identity = (*IDENTITY, *(LENDER if lent else ()))
    for run in comparison.runs:
        who = [getattr(run, name) for name in identity]
        lines += [(*who, figure.name, figure.value, *figure.ci95, run.data.n) for figure in run.figures]
        if run.against:
            lines += [(*who, *line, run.against.images) for line in _against_lines(run.against)]
    return csv_table((*identity, "figure", "value", "low", "high", "n"), lines)


def _against_lines(against: Against) -> list[tuple[str | float, ...]]:
    worst = against.worst_case
    counts = {"same prediction": against.same_prediction}
    if worst is None:
        return [(name, count, "", "") for name, count in counts.items()]
    counts |= {
        "robust in this run only": len(against.only_this),
        "robust in the first run only": len(against.only_first),
    }
    changes = [(CHANGE, worst.difference, *worst.ci95), ("McNemar p", worst.mcnemar_p, "", "")]
    return [*changes, *((name, count, "", "") for name, count in counts.items())]  # type: ignore[list-item]


def _accuracy(run: Side, name: str) -> str:
    found: Figure | None = next((figure for figure in run.figures if figure.name == name), None)
    return f"{percent(found.value)} ({interval(found.ci95)})" if found else ABSENT


def _change(against: Against) -> str:
    worst = against.worst_case
    if worst is None:
        return ABSENT
    low, high = worst.ci95
    return f"{signed(worst.difference)} points ({signed(low)} to {signed(high)})"


def _mcnemar(against: Against) -> str:
    p = against.worst_case.mcnemar_p if against.worst_case else None
    return ABSENT if p is None else f"{p:.2g}"


def _latency(run: Side) -> str:
    return f"{run.latency_ms.p50:.3g} / {run.latency_ms.p90:.3g}" if run.latency_ms else ABSENT


def _version(run: Side) -> str:
    bundle = f"bundle {run.bundle_version}, " if run.bundle_version else ""
    return f"{bundle}edgeproof {run.edgeproof or 'unknown'}"


LATENCY = "p50 / p90 ms, one image"
CHANGE = "change of worst case"
EXPLAINED = (
    f"Accuracies are of each run's own images, with 95 % intervals. From '{CHANGE}' on, rows compare a run with the "
    "first on the images that both attacked"
)
IDENTITY = ("run", "name", "precision", "backend", "provider", "device", "bundle_version", "edgeproof")
LENDER = ("gradient_backend", "gradient_provider")
WHAT: dict[str, Callable[[Side], str]] = {
    "artifact": lambda run: f"{run.name} {run.precision}",
    "engine": lambda run: run.engines,
    "device": lambda run: run.device,
    "version": _version,
    "images": lambda run: f"{run.data.n} of {run.data.name}",
    "eps": lambda run: radius(run.threat_model.eps),
    "verdict": lambda run: run.verdict,
}
AGAINST: dict[str, Callable[[Against], str]] = {
    CHANGE: _change,
    "McNemar p (exact)": _mcnemar,
    "same class, clean": lambda against: f"{against.same_prediction} of {against.images}",
    "robust in this run only": lambda against: str(len(against.only_this)) if against.worst_case else ABSENT,
    "robust in the first run only": lambda against: str(len(against.only_first)) if against.worst_case else ABSENT,
}
FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": text,
    "markdown": as_markdown,
    "html": as_html,
    "json": as_json,
    "csv": as_csv,
}
