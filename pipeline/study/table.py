"""Builds the table of a study: mean, spread and seeds per row, published figures, and differences beyond noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

from pipeline.methods import METHODS
from pipeline.study.estimate import Difference, Estimate, difference
from pipeline.study.plan import Study
from pipeline.study.published import Published, published
from pipeline.study.results import CellResult, Group, columns, gather
from pipeline.training.precision import in_words
from runtime import markdown
from runtime.csv_table import csv_table
from runtime.words import radius, signed

ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """The results of a study as text: heading and rows of equal length for each of the two tables, and notes.

    Args:
        heading, rows: accuracies in percent.
        difference_heading, difference_rows: every row minus the reference with the same student, in points.
        notes: explain the figures, one sentence each.

    """

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    difference_heading: tuple[str, ...]
    difference_rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def build_table(study: Study, results: list[CellResult], unfinished: dict[str, str]) -> Table:
    """Build the table of the cells that were judged.

    Args:
        study: names the reference and the published figures.
        results: the results of the cells that were trained.
        unfinished: the reason for each cell that is not completely trained and judged, by the cell's name.

    """
    groups = gather(results)
    measured = columns(groups)
    beside = published()[study.published] if study.published else None
    radii = len({group.radius for group in groups}) > 1
    counts = images(groups)
    named = tuple(
        f"{column} (n = {counts[column]})" if len(set(counts.values())) > 1 else column for column in measured
    )
    labels = ("student", "method", *(("search eps",) if radii else ()))
    theirs = beside.columns if beside else ()
    return Table(
        title=study.title or study.name,
        heading=(*labels, "seeds", *named, *(f"published {column}" for column in theirs)),
        rows=tuple(
            (
                *_labels(group, radii),
                str(len(group.seeds)),
                *(accuracy(group.estimates.get(column), len(group.seeds)) for column in measured),
                *_published(beside, group, theirs),
            )
            for group in groups
        ),
        difference_heading=(*labels, *measured),
        difference_rows=_difference_rows(study, groups, measured, radii),
        notes=notes(study, results, groups, beside, unfinished),
    )


def images(groups: list[Group]) -> dict[str, str]:
    """Return the number of test images of each column; several numbers if rows differ."""
    found = {
        column: sorted({g.estimates[column].images for g in groups if column in g.estimates})
        for column in columns(groups)
    }
    return {column: "/".join(map(str, numbers)) for column, numbers in found.items()}


def _labels(group: Group, radii: bool) -> tuple[str, ...]:
    return (group.student, group.method, *((radius(group.radius),) if radii else ()))


def _published(beside: Published | None, group: Group, theirs: tuple[str, ...]) -> tuple[str, ...]:
    figures = beside.figures(group.student, group.method) if beside else {}
    return tuple(f"{figures[column]:.2f}" if column in figures else ABSENT for column in theirs)


def _difference_rows(
    study: Study, groups: list[Group], measured: tuple[str, ...], radii: bool
) -> tuple[tuple[str, ...], ...]:
    rows = []
    references = {group.student: group for group in reversed(groups) if _is_reference(study, group)}
    for group in groups:
        reference = references.get(group.student)
        if reference is None or reference is group:
            continue
        cells = (compared(group.estimates.get(column), reference.estimates.get(column)) for column in measured)
        rows.append((*_labels(group, radii), *cells))
    return tuple(rows)


def _is_reference(study: Study, group: Group) -> bool:
    """Return whether differences are taken from this row: it has the reference's method and the first radius."""
    return group.method == study.reference and (not study.radii or isclose(group.radius, study.radii[0]))


def accuracy(estimate: Estimate | None, seeds: int) -> str:
    """Write an accuracy in percent, with its standard deviation over several seeds; say if some seeds are missing."""
    if estimate is None:
        return ABSENT
    spread = "" if estimate.spread is None else f" ± {100 * estimate.spread:.1f}"
    return f"{100 * estimate.mean:.1f}{spread}" + (f" ({estimate.n} of {seeds} seeds)" if estimate.n < seeds else "")


def compared(this: Estimate | None, that: Estimate | None) -> str:
    """Write a difference in points with two standard errors, 'tie', or that one seed allows no claim."""
    if this is None or that is None:
        return ABSENT
    found = difference(this, that)
    if found.error is None:
        return "n = 1"
    return "tie" if found.tie else _points(found)


def _points(found: Difference) -> str:
    assert found.error is not None
    return f"{signed(found.value)} (2 SE {200 * found.error:.1f})"


def notes(
    study: Study,
    results: list[CellResult],
    groups: list[Group],
    beside: Published | None,
    unfinished: dict[str, str],
) -> tuple[str, ...]:
    """Explain the figures: seeds, images, precision, machine, published source, methods, and what is missing."""
    counts = ", ".join(f"{column} {n}" for column, n in images(groups).items())
    radii = sorted({radius(result.threat_eps) for result in results})
    lines = [
        "Accuracy in percent: mean ± standard deviation over seeds; of one seed there is no spread. "
        f"Each column is measured on the first test images: {counts}. Attacked at eps {', '.join(radii)}.",
        f"Differences are to {study.reference} of the same student, in points. One under two standard errors "
        "(seeds taken as independent; at least half an image) is a tie; n = 1 allows no claim.",
        f"The checkpoint is the one with the best PGD-10 accuracy on the hold-out. {_circumstances(results)}",
    ]
    if beside:
        lines.append(f"Published figures: {beside.title} ({beside.source}).")
    lines += [f"{method}: {METHODS[method].source}." for method in dict.fromkeys(group.method for group in groups)]
    lines += [
        f"In doubt: {result.cell}, {name}: {doubt}."
        for result in results
        for name, judged in result.evaluations.items()
        for doubt in judged.doubts
    ]
    lines += [f"Not finished: {line}." for line in by_reason(unfinished)]
    return tuple(lines)


def by_reason(unfinished: dict[str, str]) -> list[str]:
    """Return one line per reason, with the cells that are unfinished for this reason."""
    cells: dict[str, list[str]] = {}
    for name, reason in unfinished.items():
        cells.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in cells.items()]


def _circumstances(results: list[CellResult]) -> str:
    precisions = sorted({(r.student, in_words(r.training.precision, r.training.search_precision)) for r in results})
    machines = sorted({(r.training.device, judged.device) for r in results for judged in r.evaluations.values()})
    versions = sorted({r.training.software.get("torch", "?") for r in results})
    hours = sum(r.training.seconds + sum(judged.seconds for judged in r.evaluations.values()) for r in results) / 3600
    return (
        f"Trained in {', '.join(f'{precision} ({student})' for student, precision in precisions)}, judged in fp32. "
        f"Machine: {', '.join(f'{device}, {cpu}' for device, cpu in machines)}; PyTorch {', '.join(versions)}; "
        f"{hours:.1f} hours in all, cell after cell, whatever else the machine did."
    )


def to_csv(study: Study, results: list[CellResult]) -> str:
    """Return one line per row and column: mean and spread as fractions, seeds, images, published value in percent."""
    beside = published()[study.published] if study.published else None
    heading = ("student", "method", "search_eps", "column", "mean", "spread", "seeds", "images", "published_percent")
    lines = []
    for group in gather(results):
        figures = beside.figures(group.student, group.method) if beside else {}
        for column, estimate in group.estimates.items():
            spread = "" if estimate.spread is None else f"{estimate.spread:.6f}"
            label = (group.student, group.method, f"{group.radius:.6f}", column)
            lines.append((*label, f"{estimate.mean:.6f}", spread, estimate.n, estimate.images, figures.get(column, "")))
    return csv_table(heading, lines)


def to_markdown(table: Table, pictures: tuple[str, ...]) -> str:
    """Return the page as Markdown; `pictures` are file names beside it."""
    parts = [f"# {markdown.escape(table.title)}", _markdown(table.heading, table.rows)]
    if table.difference_rows:
        parts += ["## Differences", _markdown(table.difference_heading, table.difference_rows)]
    parts += [f"![{picture.removesuffix('.png')}]({picture})" for picture in pictures]
    parts.append("\n".join(f"- {markdown.escape(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _markdown(heading: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    return markdown.table([*map(markdown.escape, heading)], ([*map(markdown.escape, row)] for row in rows))
