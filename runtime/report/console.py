"""The summary that a run ends with, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from runtime.report.phrases import accuracy_rows, checks_line, reasons, union_line, verdict_of
from runtime.report.tables import add_row, new_table
from runtime.words import interval, percent, radius

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.records.report import Report

STYLES = {"passed": "bold green", "measured": "bold", "failed": "bold red", "inconclusive": "bold yellow"}


def print_summary(report: Report, out: Path) -> None:
    """Print the verdict and why, accuracy per attack with its interval, warnings, and where the report is."""
    console = Console(highlight=False, soft_wrap=True)
    verdict = verdict_of(report)
    console.print(verdict, style=STYLES[verdict])
    for reason in reasons(report):
        console.print(f"  {reason}", markup=False)
    table = new_table(("attack", "accuracy", "95 % interval"))
    for name, accuracy, ends in accuracy_rows(report):
        add_row(table, (name, percent(accuracy), interval(ends)))
    console.print(table)
    union = union_line(report)
    if union:
        console.print(union, markup=False)
    for warning in report.warnings:
        console.print(f"{'blocking' if warning.blocking else 'warning'}: {warning.message}", markup=False)
        console.print(f"  hint: {warning.hint}", markup=False)
    if report.checks:
        console.print(checks_line(report), markup=False)
    if report.sequential:
        console.print(report.sequential.reason, markup=False)
    artifact = report.artifact
    what = f"{artifact.name} {artifact.precision} on {artifact.backend}/{artifact.provider}"
    console.print(f"{what}, {'' if artifact.authenticated else 'not '}authenticated", markup=False)
    console.print(f"{report.data.n} images, eps {radius(report.threat_model.eps)}", markup=False)
    console.print(f"report: {out}", markup=False)
