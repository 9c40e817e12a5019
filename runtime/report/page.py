"""report.html: one self-contained page from report.json alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.report.words import accuracy_rows, interval, reasons, tone
from runtime.statistics import percent, points

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.report.account import Account
    from runtime.report_schema import Report

TEMPLATES = Path(__file__).with_name("templates")

INK = "#010203"
"""Drawn by matplotlib, then replaced by the page's own text colour, which follows light and dark."""
ACCENT = "#3b7dd8"


def render(account: Account) -> str:
    """Return the page: verdict first, then figures, then circumstances. Every text is escaped."""
    import jinja2

    report = account.report
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, interval=interval, points=points)
    plots = {"accuracy_plot": draw(accuracy_plot, report)}
    plots["curve_plot"] = draw(curve_plot, report) if report.eps_curve else ""
    return environment.get_template("report.html.j2").render(
        r=report, tone=tone(report), reasons=reasons(report), rows=accuracy_rows(report), **plots
    )


def accuracy_plot(axes: Any, report: Report) -> None:
    """Draw accuracy with its interval, clean on top, the worst case at the bottom."""
    rows = accuracy_rows(report)
    for place, (_, accuracy, (low, high)) in enumerate(rows):
        axes.barh(place, 100 * accuracy, color=ACCENT, height=0.6)
        axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.5)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, % (line: 95 % interval)")


def curve_plot(axes: Any, report: Report) -> None:
    """Draw accuracy over eps."""
    curve = report.eps_curve
    axes.plot(
        [255 * point.eps for point in curve],
        [100 * point.accuracy for point in curve],
        color=ACCENT,
        marker="o",
    )
    axes.axvline(255 * report.threat_model.eps, color=INK, linewidth=1, linestyle=":")
    axes.set_ylim(0, 100)
    axes.set_xlabel("eps, 1/255 (dotted: the threat model's)")
    axes.set_ylabel("accuracy under PGD-10, %")


def draw(plot: Callable[[Any, Report], None], report: Report) -> str:
    """Return a plot as an <svg> element that takes its text colour from the page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context({**ink, "svg.fonttype": "none", "svg.hashsalt": plot.__name__, "font.size": 11}):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes, report)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
