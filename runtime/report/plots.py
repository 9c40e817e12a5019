"""The plots of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.report.phrases import CLEAN as CLEAN_ROW
from runtime.report.phrases import WORST, accuracy_rows, attack_names
from runtime.report.svg import CLEAN, INK, ROBUST, SOFT, TINT, draw
from runtime.statistics import wilson
from runtime.words import percent, radius

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.records.bench import Bench, BenchRun
    from runtime.records.report import ClassRow, Report
    from runtime.report.account import Account

BAR, AROUND = 0.32, 0.78
"""Inches of a row of a plot, and of what is around the rows."""
MOST_CLASSES = 20
"""Classes of a plot; of more, the least robust are shown."""


def plots(account: Account) -> dict[str, str]:
    """Return the plots that there is something for, by name, as <svg>."""
    report, drawn = account.report, {}
    rows = len(accuracy_rows(report))
    drawn["accuracy"] = draw("accuracy", "Accuracy by attack", _height(rows), lambda axes: accuracy(axes, report))
    if account.others:
        title, rows = "Robust accuracy of each run", 1 + len(account.others)
        drawn["others"] = draw("others", title, _height(rows), lambda axes: others(axes, account))
    if report.eps_curve:
        drawn["curve"] = draw("curve", "Accuracy over eps", 2.9, lambda axes: curve(axes, report))
    shown = shown_classes(report)
    drawn["classes"] = draw("classes", "Accuracy by class", _height(len(shown)), lambda axes: classes(axes, shown))
    if report.attacks:
        drawn["cost"] = draw("cost", "Seconds by attack", _height(len(report.attacks)), lambda axes: cost(axes, report))
    if account.bench:
        bench, rows = account.bench, len(account.bench.runs)
        drawn["latency"] = draw("latency", "Latency by batch size", _height(rows), lambda axes: latency(axes, bench))
    return drawn


def shown_classes(report: Report) -> list[ClassRow]:
    """Return the classes that have images; of many, those of the least robust accuracy."""
    rows = [row for row in report.per_class if row.n]
    if len(rows) <= MOST_CLASSES:
        return rows
    return sorted(rows, key=lambda row: (row.robust or 0.0, row.label))[:MOST_CLASSES]


def accuracy(axes: Any, report: Report) -> None:
    """Draw accuracy with its interval, clean on top, the worst case at the bottom; the gate as a line."""
    rows = accuracy_rows(report)
    for y, row in enumerate(rows):
        colour = {CLEAN_ROW: CLEAN, WORST: ROBUST}.get(row.name, TINT)
        axes.barh(y, 100 * row.accuracy, color=colour, height=0.62)
        axes.plot([100 * end for end in row.ends], [y, y], color=INK, linewidth=1.6)
    if report.gate.fail_under is not None:
        axes.axvline(100 * report.gate.fail_under, color=INK, linewidth=1.2, linestyle="--")
        axes.set_title(f"dashed: the gate, {percent(report.gate.fail_under)}", fontsize=10, color=SOFT, loc="right")
    _rows(axes, [f"{row.name}  {percent(row.accuracy)}" for row in rows], "accuracy, % (line: 95 % interval)")
    axes.set_xlim(0, 100)


def others(axes: Any, account: Account) -> None:
    """Draw robust accuracy with its interval, this run on top."""
    reports = [account.report, *(other.report for other in account.others)]
    for y, report in enumerate(reports):
        if report.robust_accuracy:
            colour = SOFT if y else ROBUST
            ends = [100 * end for end in report.robust_accuracy.ci95]
            axes.plot(ends, [y, y], color=colour, linewidth=2)
            axes.plot(100 * report.robust_accuracy.value, y, color=colour, marker="D" if y else "o")
    names = [f"{report.artifact.name} {report.artifact.precision}" for report in reports]
    _rows(axes, _cut(names), "robust accuracy, % (line: 95 % interval)")


def curve(axes: Any, report: Report) -> None:
    """Draw accuracy over eps with its interval."""
    points = report.eps_curve
    eps, value = [255 * point.eps for point in points], [100 * point.accuracy for point in points]
    ends = [wilson(round(point.accuracy * point.n), point.n) for point in points]
    axes.fill_between(
        eps, [100 * low for low, _ in ends], [100 * high for _, high in ends], color=ROBUST, alpha=0.2, linewidth=0
    )
    axes.plot(eps, value, color=ROBUST, marker="o", linewidth=1.8)
    axes.axvline(255 * report.threat_model.eps, color=INK, linewidth=1.2, linestyle=":")
    axes.set_title(f"dotted: eps {radius(report.threat_model.eps)}", fontsize=10, color=SOFT, loc="right")
    axes.set(ylim=(0, 100), xlabel="eps, 1/255", ylabel="accuracy under PGD-10, %")
    axes.grid(axis="y")


def classes(axes: Any, rows: Sequence[ClassRow]) -> None:
    """Draw clean and robust accuracy of each class, joined by a line."""
    for y, row in enumerate(rows):
        clean, robust = 100 * (row.clean or 0), 100 * (row.robust or 0)
        axes.plot([robust, clean], [y, y], color=SOFT, linewidth=1.5, alpha=0.7)
        axes.plot(clean, y, color=CLEAN, marker="o", markersize=6)
        axes.plot(robust, y, color=ROBUST, marker="D", markersize=5.5)
    _rows(axes, _cut([row.name for row in rows]), "accuracy, % (disc: clean, diamond: robust)")
    axes.set_xlim(-2, 102)


def cost(axes: Any, report: Report) -> None:
    """Draw the seconds that each attack took."""
    axes.barh(range(len(report.attacks)), [row.seconds for row in report.attacks], color=SOFT, height=0.62)
    _rows(axes, attack_names(report), "seconds")


def latency(axes: Any, bench: Bench) -> None:
    """Draw the latency of a batch from p50 to p99."""
    from matplotlib.ticker import LogLocator, NullLocator

    for y, run in enumerate(bench.runs):
        found = run.latency_ms
        axes.plot([found.p50, found.p99], [y, y], color=SOFT, linewidth=2)
        axes.plot(found.p50, y, color=CLEAN, marker="o")
        axes.plot(found.p90, y, color=SOFT, marker="s", markersize=4.5)
        axes.plot(found.p99, y, color=ROBUST, marker="D", markersize=5.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    _rows(axes, [_run_name(run) for run in bench.runs], "ms a batch (disc: p50, square: p90, diamond: p99)")


def _run_name(run: BenchRun) -> str:
    return f"{run.precision}, batch {run.batch}"


def _rows(axes: Any, names: Sequence[str], label: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.grid(axis="x")


def _height(rows: int) -> float:
    return AROUND + BAR * max(rows, 2)


def _cut(names: Sequence[str], most: int = 28) -> list[str]:
    """Return names that leave room for what is plotted."""
    return [name if len(name) <= most else f"{name[: most - 1]}…" for name in names]
