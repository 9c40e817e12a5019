"""The table of the cells that are done: figures with n, seeds, machine and hours; pairs of rows, image by image."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

from benchmarks.cifar10.record import STOOD, Record
from benchmarks.cifar10.study import Study
from pipeline.study.estimate import Difference
from pipeline.study.published import published
from pipeline.training.precision import in_words
from runtime import markdown
from runtime.statistics import wilson
from runtime.words import percent

CLEAN, STRONGEST = "clean", "aa"
PUBLISHED = "cifar10-wrn34-20"
NOTHING = "–"


@dataclass(frozen=True)
class Group:
    """The seeds of one row of one student."""

    row: str
    student: str
    records: tuple[Record, ...]

    def answers(self, column: str) -> list[list[float]]:
        """Return 1 or 0 by seed and image: classified correctly, without an attack or under one."""
        return [[float(digit == STOOD) for digit in text(record, column)] for record in self.records]

    def means(self, column: str) -> list[float]:
        """Return the accuracy of each seed."""
        return [statistics.fmean(row) for row in self.answers(column)]


def text(record: Record, column: str) -> str:
    """Return a record's digits of a column."""
    return next(iter(record.judged.values())).clean if column == CLEAN else record.judged[column].stands


def gather(study: Study, records: Sequence[Record]) -> list[Group]:
    """Gather records over their seeds, in the order of the study."""
    own = {
        (student, row.name): tuple(r for r in records if (r.student, r.row) == (student, row.name))
        for student in study.students
        for row in study.rows
    }
    return [Group(row, student, found) for (student, row), found in own.items() if found]


def difference(this: Group, that: Group, column: str) -> Difference:
    """Return the mean of `this` less that of `that`, paired image by image, with its standard error.

    An image's difference is that of its means over seeds; their standard error over images is that of other test
    images. With two seeds or more of both, that of training again, sqrt(s1^2 / n1 + s2^2 / n2), is added in
    quadrature. It is at least half an image: images that all agree are no certainty.
    """
    one, other = ([statistics.fmean(image) for image in zip(*g.answers(column), strict=True)] for g in (this, that))
    apart = [a - b for a, b in zip(one, other, strict=True)]
    squares = statistics.variance(apart) / len(apart)
    seeds = [group.means(column) for group in (this, that)]
    if all(len(values) > 1 for values in seeds):
        squares += sum(statistics.variance(values) / len(values) for values in seeds)
    return Difference(statistics.fmean(apart), max(sqrt(squares), 0.5 / len(apart)))


def ordering(study: Study, groups: Sequence[Group]) -> list[tuple[Group, Group, float]]:
    """Return the pairs of rows that were published: the better by AutoAttack first, and by how many points it is."""
    table, methods = published()[PUBLISHED], {row.name: row.method for row in study.rows}
    known = [
        (figures[STRONGEST], group)
        for group in groups
        if methods[group.row] == group.row and (figures := table.figures(group.student, group.row))
    ]
    ranked = sorted(known, key=lambda pair: -pair[0])
    return [
        (better, worse, up - down)
        for (up, better), (down, worse) in combinations(ranked, 2)
        if better.student == worse.student
    ]


def agreement(found: Difference) -> str:
    """Say of a pair that is published as better and worse what was measured here."""
    if found.tie:
        return "tie"
    return "agrees" if found.value > 0 else "opposes"


def to_markdown(study: Study, records: Sequence[Record], missing: Sequence[str]) -> str:
    """Return the page: figures, differences to the reference, with and without, the published ordering, notes."""
    groups = gather(study, records)
    columns = (CLEAN, *study.attacks)
    by_row = {(group.student, group.row): group for group in groups}
    references = [(group, by_row.get((group.student, study.reference))) for group in groups]
    pairs = [
        (by_row[student, more], by_row[student, less])
        for student in study.students
        for more, less in study.pairs
        if (student, more) in by_row and (student, less) in by_row
    ]
    against = [(group, other) for group, other in references if other is not None and other is not group]
    parts = [
        _figures(groups, columns),
        _differences(f"Differences to {study.reference}", against, columns),
        _differences("With and without", pairs, columns),
        _orderings(ordering(study, groups)),
        "\n".join(f"- {note}" for note in notes(records, missing)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(groups: Sequence[Group], columns: Sequence[str]) -> str:
    heading = ("student", "width", "row", "seeds", "n", *columns, "hours")
    lines = [
        (
            group.student,
            f"{group.records[0].width:g}",
            group.row,
            str(len(group.records)),
            str(group.records[0].n),
            *(_accuracy(group, column) for column in columns),
            f"{sum(record.hours for record in group.records):.2f}",
        )
        for group in groups
    ]
    return markdown.table(heading, lines, left=3)


def _accuracy(group: Group, column: str) -> str:
    means = group.means(column)
    if len(means) > 1:
        return f"{100 * statistics.fmean(means):.1f} ± {100 * statistics.stdev(means):.1f}"
    images = group.answers(column)[0]
    low, high = wilson(int(sum(images)), len(images))
    return f"{100 * means[0]:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _differences(title: str, pairs: Sequence[tuple[Group, Group]], columns: Sequence[str]) -> str:
    lines = [
        (this.student, f"{this.row} – {that.row}", *(_points(difference(this, that, column)) for column in columns))
        for this, that in pairs
    ]
    return f"## {title}\n\n{markdown.table(('student', 'rows', *columns), lines, left=2)}" if lines else ""


def _points(found: Difference) -> str:
    assert found.error is not None
    return f"{100 * found.value:+.1f} ± {200 * found.error:.1f}" + (", tie" if found.tie else "")


def _orderings(pairs: Sequence[tuple[Group, Group, float]]) -> str:
    if not pairs:
        return ""
    lines = []
    for better, worse, apart in pairs:
        found = difference(better, worse, STRONGEST)
        lines.append((better.student, f"{better.row} > {worse.row}", f"{apart:+.2f}", _points(found), agreement(found)))
    table = markdown.table(("student", "published as", "published, points", "here, points", ""), lines, left=2)
    return f"## The published ordering under AutoAttack\n\n{table}"


def notes(records: Sequence[Record], missing: Sequence[str]) -> list[str]:
    """Say what the figures are, of what, on which machine, and what is missing."""
    if not records:
        return ["No cell is done.", *(f"Missing: {name}." for name in missing)]
    several = len({record.seed for record in records}) > 1
    spread = "mean ± standard deviation over seeds; of one seed the 95 % interval" if several else "95 % intervals"
    beyond = (
        "over seeds too where both rows have several"
        if several
        else "with one seed, the spread over trainings is not in it"
    )
    lines = [
        f"Accuracy of the exported artifact in percent, {spread}.",
        f"Differences in points ± two standard errors over test images, paired image by image; {beyond}. One under two "
        "standard errors is a tie.",
        *_circumstances(records),
        *(f"In doubt: {r.training.name}, {name}: {doubt}." for r in records for name, j in r.judged.items()
          for doubt in j.doubts),
    ]  # fmt: skip
    unknown = [record.name for record in records if record.test_data is None]
    if unknown:
        whose = ", ".join(unknown)
        lines.append(
            f"No digest of the test images is on record for {whose}: whether they are the same is not checked."
        )
    return [*lines, *([f"Missing: {', '.join(missing)}."] if missing else [])]


def _circumstances(records: Sequence[Record]) -> list[str]:
    trained = sorted({
        f"{r.epochs} epochs of {r.training.training_data.n} images, {r.schedule}, {r.search_steps} search steps"
        for r in records
    }) + sorted({
        f"{r.student} in {in_words(r.training.precision, r.training.search_precision)}" for r in records
    })  # fmt: skip
    machines = sorted({f"{r.training.device}, {j.device.get('gpu', j.device['cpu'])}, {r.training.threads} threads"
                       for r in records for j in r.judged.values()})  # fmt: skip
    teachers = {(r.training.teacher_sha256, r.training.teacher) for r in records if r.training.teacher is not None}
    versions = sorted({f"PyTorch {r.training.software['torch']}" for r in records})
    return [
        f"Trained: {'; '.join(trained)}.",
        *(f"Teacher {str(digest)[:12]}: clean {percent(reached.clean)}, PGD-10 {percent(reached.pgd)} on {reached.n} "
          "hold-out images of the students, on which it may have been trained." for digest, reached in teachers),
        f"Machine: {'; '.join(machines)}; {', '.join(versions)}; {sum(r.hours for r in records):.1f} hours by the "
        "clock, whatever else the machine did.",
    ]  # fmt: skip
