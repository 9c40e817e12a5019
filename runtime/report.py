"""report.html: one self-contained page from report.json alone."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.attacks import any_bounded
from runtime.statistics import percent, points

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.report_schema import Report

TEMPLATE = Path(__file__).with_name("report.html.j2")
LIBRARIES = ("jinja2", "matplotlib")

INK = "#010203"
"""Drawn by matplotlib, then replaced by the page's own text colour, which follows light and dark."""
ACCENT = "#3b7dd8"
BEYOND = "(no eps)"
"""Said of an attack that keeps to no ball, hence is no part of the worst case."""


def missing_library() -> str | None:
    """Return the first library that the page needs and that is not installed."""
    return next((name for name in LIBRARIES if find_spec(name) is None), None)


def render(report: Report) -> str:
    """Return the page: verdict first, then figures, then circumstances. Every text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, interval=interval, points=points)
    plots = {"accuracy_plot": draw(accuracy_plot, report)}
    plots["curve_plot"] = draw(curve_plot, report) if report.eps_curve else ""
    return environment.get_template(TEMPLATE.name).render(
        r=report, tone=tone(report), reasons=reasons(report), rows=accuracy_rows(report), **plots
    )


def tone(report: Report) -> str:
    """Return the verdict, as the name of a colour; 'neutral' for a pass that nothing was required for."""
    required = report.gate.fail_under is not None or (report.gate.max_drop is not None and report.paired is not None)
    return report.verdict if required or report.verdict != "passed" else "neutral"


def reasons(report: Report) -> tuple[str, ...]:
    """Return the reasons for the verdict; after a pass that nothing was required for, also that."""
    if tone(report) != "neutral":
        return report.reasons
    robust = report.robust_accuracy
    figure = f"robust accuracy {percent(robust.value)}" if robust else "no attack within eps ran"
    return (*report.reasons, f"nothing was required of it; {figure}")


def interval(ends: tuple[float, float]) -> str:
    """Write an interval of fractions as percent with one decimal."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def accuracy_rows(report: Report) -> list[tuple[str, float, tuple[float, float]]]:
    """Return (name, accuracy, 95 % interval): clean, every attack, the worst case."""
    rows = [("clean", report.clean.accuracy, report.clean.ci95)]
    for attack in report.attacks:
        name = attack.name if any_bounded([attack.name]) else f"{attack.name} {BEYOND}"
        rows.append((name, attack.accuracy, attack.ci95))
    if report.robust_accuracy:
        rows.append(("worst case", report.robust_accuracy.value, report.robust_accuracy.ci95))
    if report.lattice:
        rows.append(("on uint8", report.lattice.value, report.lattice.ci95))
    return rows


def checks_line(report: Report) -> str:
    """Say how many of the checks found nothing, and which did not run."""
    quiet = sum(check.state == "quiet" for check in report.checks)
    absent = ", ".join(check.check for check in report.checks if check.state == "not run")
    return f"{quiet} checks found nothing" + (f"; not run: {absent}" if absent else "")


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
