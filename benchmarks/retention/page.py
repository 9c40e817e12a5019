"""The table in Markdown, and the pictures beside it."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.retention.artifacts import FORMATS
from benchmarks.retention.cells import ROUTES
from benchmarks.retention.figures import FREE, Row, Share
from runtime.statistics import Interval
from runtime.words import radius

HEAD = ("student", "eps", "format", "clean", *ROUTES, "union", "union / fp32")
SIZE = (8.0, 4.0)
"""Inches of a picture."""


def table(rows: Sequence[Row]) -> str:
    """Return all rows in Markdown: percent, with 95 % intervals of the union and of the ratio."""
    lines = [HEAD, ["---"] * len(HEAD), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row) -> list[str]:
    routes = [_percent(row.routes[route]) for route in ROUTES]
    ratio = "" if row.ratio is None or row.ratio_ci95 is None else f"{row.ratio:.3f} {_ends(row.ratio_ci95, 1, 3)}"
    return [
        row.student,
        radius(row.eps),
        row.form,
        _percent(row.clean),
        *routes,
        f"{_percent(row.union)} {_ends(row.union.ci95, 100, 1)}",
        "1" if row.form == FORMATS[0].name else ratio,
    ]


def _percent(share: Share) -> str:
    return f"{100 * share.accuracy:.1f}"


def _ends(ends: Interval, scale: float, digits: int) -> str:
    return f"({scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f})"


def pictures(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return the pictures as SVG files by name: what each format retains, and what survives each route."""
    return {
        "retention-ratio.svg": _drawn("ratio", lambda axes: ratio_plot(axes, rows)),
        "retention-routes.svg": _drawn("routes", lambda axes: route_plot(axes, rows)),
    }


def ratio_plot(axes: Any, rows: Sequence[Row]) -> None:
    """Draw the ratio of the unions with its interval, a colour a student, against the line of the rule."""
    students = list(dict.fromkeys(row.student for row in rows))
    places = {form.name: place for place, form in enumerate(FORMATS[1:])}
    for number, student in enumerate(students):
        own = [row for row in rows if row.student == student and row.form in places and row.ratio is not None]
        shift = 0.6 * ((number + 0.5) / len(students) - 0.5)
        for row in own:
            assert row.ratio is not None
            assert row.ratio_ci95 is not None
            low, high = row.ratio_ci95
            bars = [[row.ratio - low], [high - row.ratio]]
            label = student if row is own[0] else None
            axes.errorbar(
                places[row.form] + shift, row.ratio, yerr=bars, fmt="o", color=f"C{number}", label=label, capsize=2
            )
    axes.axhline(FREE, linestyle="--", linewidth=1, color="C7")
    axes.set_xticks(list(places.values()), list(places))
    axes.set_ylabel("union of routes / fp32 (95 % intervals)")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)


def route_plot(axes: Any, rows: Sequence[Row]) -> None:
    """Draw what survives each route and the union, a group an artifact."""
    kinds = (*ROUTES, "union")
    for number, kind in enumerate(kinds):
        heights = [100 * (row.union if kind == "union" else row.routes[kind]).accuracy for row in rows]  # type: ignore[index]
        axes.bar([place + 0.2 * (number - 1.5) for place in range(len(rows))], heights, 0.2, label=kind)
    axes.set_xticks(range(len(rows)), [row.form for row in rows], rotation=60, ha="right", fontsize=7)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_ylabel("surviving, % of all images")
    for student in dict.fromkeys(row.student for row in rows):
        places = [place for place, row in enumerate(rows) if row.student == student]
        axes.axvline(places[-1] + 0.5, color="C7", linewidth=0.8)
        label = f"{student}\n{radius(rows[places[0]].eps)}".replace("-", "-\n", 1)
        axes.text(sum(places) / len(places), 98, label, ha="center", va="top", fontsize=7)
    axes.legend(frameon=False, ncols=len(kinds), loc="lower left", bbox_to_anchor=(0, 1))


def _drawn(name: str, plot: Callable[[Any], None]) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        plot(axes)
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return file.getvalue()
