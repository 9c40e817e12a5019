"""The summary that a run prints to stdout at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from runtime.checks.claim import effect
from runtime.report.phrases import accuracy_rows, checks_line, reasons, union_line, verdict_of
from runtime.report.tables import add_row, new_table, print_line
from runtime.words import interval, percent, radius

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.records.report import Report

STYLES = {"passed": "bold green", "measured": "bold", "failed": "bold red", "inconclusive": "bold yellow"}


def print_summary(report: Report, out: Path) -> None:
    """Print the verdict with its reasons, accuracy per attack with its interval, warnings, and the report's path."""
    console = Console(highlight=False, soft_wrap=True)
    verdict = verdict_of(report)
    print_line(console, verdict, STYLES[verdict])
    said = reasons(report)
    hints = {warning.message: warning.hint for warning in report.warnings}
    for reason in said:
        print_line(console, f"  {reason}")
        if reason in hints:
            print_line(console, f"    hint: {hints[reason]}")
    table = new_table(("attack", "accuracy", "95 % interval"))
    for name, accuracy, ends in accuracy_rows(report):
        add_row(table, (name, percent(accuracy), interval(ends)))
    console.print(table)
    union = union_line(report)
    if union:
        print_line(console, union)
    for warning in (each for each in report.warnings if each.message not in said):
        print_line(console, f"{effect(warning)}: {warning.message}")
        print_line(console, f"  hint: {warning.hint}")
    if report.checks:
        print_line(console, checks_line(report))
    if report.sequential:
        print_line(console, report.sequential.reason)
    artifact = report.artifact
    what = f"{artifact.name} {artifact.precision} on {artifact.engines}"
    print_line(console, f"{what}, {'' if artifact.authenticated else 'not '}authenticated")
    print_line(console, f"{report.data.n} images, eps {radius(report.threat_model.eps)}")
    print_line(console, f"report: {out}")
