"""Reads the results of a study's cells from their directories, and collects them over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.directory import Summary, read_summary
from pipeline.study.cell import CHECKPOINT, own_report
from pipeline.study.estimate import Estimate
from pipeline.study.plan import RUN, Cell, Study
from runtime.attacks import NAMES
from runtime.records.report import Accuracy, Report
from runtime.spec import Frozen, Name, Text

CLEAN = "clean"
COLUMNS = (CLEAN, *NAMES)
"""The order of a table's columns."""


class Judged(Frozen):
    """One evaluation of a cell: accuracies of the attacks asked for, as fractions of the first n test images.

    `doubts` are the report's blocking warnings: reasons to distrust the figures.
    """

    n: int
    clean: Accuracy
    attacks: dict[Text, Accuracy]
    doubts: tuple[Text, ...] = ()
    seconds: float
    device: Text


class CellResult(Frozen):
    """The results of one cell, small enough to keep: its summary.json, and every evaluation by name."""

    cell: Name
    method: Text
    student: Text
    search_eps: float
    threat_eps: float
    seed: int
    checkpoint: Text
    training: Summary
    evaluations: dict[Name, Judged]

    def figures(self) -> dict[str, tuple[float, int]]:
        """Return (accuracy, images) by column; if two evaluations have the same attack, that on more images counts."""
        best: dict[str, tuple[float, int]] = {}
        for judged in self.evaluations.values():
            for column, accuracy in ((CLEAN, judged.clean), *judged.attacks.items()):
                if judged.n > best.get(column, (0.0, 0))[1]:
                    best[column] = (accuracy.value, judged.n)
        return best


@dataclass(frozen=True)
class Group:
    """One row over its seeds: the estimates by column, for the columns that were measured."""

    student: str
    method: str
    radius: float
    seeds: tuple[int, ...]
    estimates: dict[str, Estimate]


def read_cell(study: Study, cell: Cell, directory: Path) -> CellResult | None:
    """Read one cell; None if its training run is not finished. Unfinished evaluations are left out."""
    summary = read_summary(directory / RUN)
    if summary is None:
        return None
    reports = {evaluation.name: own_report(directory, evaluation) for evaluation in study.evaluation}
    return CellResult(
        cell=cell.name,
        method=cell.method,
        student=cell.student,
        search_eps=cell.radius,
        threat_eps=cell.recipe.threat.eps,
        seed=cell.seed,
        checkpoint=CHECKPOINT,
        training=summary,
        evaluations={name: figures_of(report) for name, report in reports.items() if report is not None},
    )


def figures_of(report: Report) -> Judged:
    """Return the figures of each requested attack. A stage of a cascade does not count, even if it has that name."""
    asked = {attack.name for attack in report.request.attacks}
    clean, n = report.clean, report.clean.n
    rows = [row for row in report.attacks if row.name in asked and not row.cascade]
    return Judged(
        n=n,
        clean=Accuracy(value=clean.accuracy, ci95=clean.ci95),
        attacks={row.name: Accuracy(value=row.accuracy, ci95=row.ci95) for row in rows},
        doubts=tuple(warning.message for warning in report.warnings if warning.blocking),
        seconds=report.seconds,
        device=str(report.device["cpu"]),
    )


def gather(results: Iterable[CellResult]) -> list[Group]:
    """Group the judged cells into rows over their seeds, in the order in which the rows first appear."""
    rows: dict[tuple[str, str, float], list[CellResult]] = {}
    for result in results:
        if result.evaluations:
            rows.setdefault((result.student, result.method, result.search_eps), []).append(result)
    return [
        Group(student, method, radius, tuple(result.seed for result in own), _estimates(own))
        for (student, method, radius), own in rows.items()
    ]


def _estimates(results: list[CellResult]) -> dict[str, Estimate]:
    figures = [result.figures() for result in results]
    estimates = {}
    for column in COLUMNS:
        own = [row[column] for row in figures if column in row]
        if own:
            estimates[column] = Estimate(tuple(value for value, _ in own), min(images for _, images in own))
    return estimates


def columns(groups: Iterable[Group]) -> tuple[str, ...]:
    """Return the columns that any row has, in the order of the table."""
    present = {column for group in groups for column in group.estimates}
    return tuple(column for column in COLUMNS if column in present)
