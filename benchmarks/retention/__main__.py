"""What rounding does to robustness: students x number formats x whose gradient the attack follows.

    python -m benchmarks.retention RUN[@EPS]... --out DIR [--n 500] [--backend ort]

RUN is what `edgeproof distill` or `teach` left, EPS a radius in 1/255. Each student is exported in every format, and
every artifact is attacked by every route; then DIR/BACKEND holds table.md, rule.md, the pictures and retention.json.
What is in DIR already is not done again: stopped, the same command goes on with the cell in which it was. Another
backend judges the same bundles.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.retention.artifacts import FORMATS, Format, Student, export_student, kept_fp16, student_card
from benchmarks.retention.cells import Engine, run_cells
from benchmarks.retention.figures import Row, rows, ruled
from benchmarks.retention.page import pictures, table
from benchmarks.retention.record import Measured, Record
from pipeline.runs.directory import open_run
from runtime.backends.table import BACKENDS, provider_of
from runtime.errors import UsageFault
from runtime.files import write_atomic
from runtime.images import DATA_ROOT
from runtime.spec import to_json


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.retention", description=__doc__)
    asked.add_argument("students", nargs="+", type=Student.parse, metavar="RUN[@EPS]")
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--n", type=int, default=500, help="test images, drawn by a fixed seed")
    asked.add_argument("--backend", choices=list(BACKENDS), default="ort")
    asked.add_argument("--provider", help="of the backend; by default the one that it has here")
    asked.add_argument(
        "--formats",
        type=_formats,
        default=FORMATS,
        help=f"of {', '.join(form.name for form in FORMATS)}; fp32 is always",
    )
    asked.add_argument("--data-root", type=Path, default=DATA_ROOT)
    return asked


def _formats(text: str) -> tuple[Format, ...]:
    """Return the formats that are named, in the order of the table."""
    named = {FORMATS[0].name, *(name.strip() for name in text.split(","))}
    if unknown := named - {form.name for form in FORMATS}:
        raise argparse.ArgumentTypeError(f"no format is called {', '.join(sorted(unknown))}")
    return tuple(form for form in FORMATS if form.name in named)


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, attack, and write what came of it after every student."""
    asked = parser().parse_args(arguments)
    engine = Engine(asked.backend, provider_of(asked.backend, asked.provider))
    measured: list[Measured] = []
    _refuse_one_name([open_run(student.run, "best").recipe.name for student in asked.students])
    for student in asked.students:
        directory = asked.out / student.run.name
        export_student(student, directory, asked.n, asked.data_root, asked.formats)
        cells = run_cells(directory, engine, asked.formats)
        measured.append(Measured(card=student_card(directory), kept_fp16=kept_fp16(directory), cells=cells))
        write_results(asked.out / asked.backend, Record(students=tuple(measured)))


def _refuse_one_name(names: Sequence[str]) -> None:
    """Raise `UsageFault` if two students have one name: table and rule know them by it."""
    for name in names:
        if names.count(name) > 1:
            raise UsageFault(
                f"two students are called {name}: table and rule know them by name",
                hint="give the recipe of one of them another name",
            )


def rows_of(record: Record) -> list[Row]:
    """Return the rows of the table."""
    return [row for each in record.students for row in rows(each.card.name, each.cells)]


def write_results(out: Path, record: Record) -> None:
    """Write the record, and the table, the rule's words and the pictures of it."""
    found = rows_of(record)
    write_atomic(out / "retention.json", to_json(record))
    write_atomic(out / "table.md", table(found).encode())
    write_atomic(out / "rule.md", "".join(f"- {sentence}\n" for sentence in ruled(found)).encode())
    for name, picture in pictures(found).items():
        write_atomic(out / name, picture)


if __name__ == "__main__":
    main()
