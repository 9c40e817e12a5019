"""CIFAR-10-JPEG from one robust teacher: train, export and attack every cell of study.toml, and make its table.

    python -m benchmarks.cifar10 images cifar10-jpeg.zip DATA --scale cpu
    python -m benchmarks.cifar10 run DATA TEACHER OUT --scale cpu
    python -m benchmarks.cifar10 table OUT/cells [PAGE.md] --scale cpu

`run` goes on where it was stopped, within a cell too, and leaves one record a cell in OUT/cells. `run` and `table`
refuse cells of another scale, of another teacher or of other images.
"""

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.cifar10.cell import CELLS, RECORD, run_cell
from benchmarks.cifar10.mixture import check_place, check_records
from benchmarks.cifar10.record import read_records
from benchmarks.cifar10.study import Scale, Study, cells, load_study
from benchmarks.cifar10.table import to_markdown
from runtime.errors import EdgeproofError
from runtime.files import write_atomic
from runtime.locks import lock_if_free

TRAIN, PICTURE = "train", ".jpg"


def unpack(archive: Path, out: Path, a_class: int | None) -> None:
    """Unpack SPLIT/CLASS/NAME.jpg: all test images, and of training the first `a_class` of each class by name."""
    taken: dict[str, int] = {}
    with zipfile.ZipFile(archive) as file:
        for name in sorted(file.namelist()):
            parts = Path(name).parts[-3:]
            if not name.endswith(PICTURE) or len(parts) < 3:
                continue
            split, folder, picture = parts
            if split == TRAIN:
                taken[folder] = taken.get(folder, 0) + 1
            if split == TRAIN and a_class is not None and taken[folder] > a_class:
                continue
            place = out / split / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / picture).write_bytes(file.read(name))


def run(study: Study, scale: Scale, data: Path, teacher: Path, out: Path) -> int:
    """Run every cell that nobody else is at; return how many failed. If one fails, its error is printed.

    Raises:
        EdgeproofError: see `check_place`.

    """
    data, teacher = data.resolve(), teacher.resolve()
    check_place(study, scale, data, teacher, out)
    failed = 0
    for cell in cells(study, scale):
        place = out / cell.name
        place.mkdir(parents=True, exist_ok=True)
        kept = out / CELLS / f"{cell.name}.json"
        with lock_if_free(place / ".claim") as mine:
            if not mine or kept.exists():
                continue
            print(f"{cell.name} ...", flush=True)
            try:
                run_cell(study, scale, cell, data, teacher, place)
            except (subprocess.CalledProcessError, EdgeproofError) as error:
                print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
                failed += 1
                continue
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(place / RECORD, kept)
    return failed


def main() -> None:
    """Read the command line, do it, and exit: with 0, with 1 if a cell failed, or with the code of an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_subparsers(dest="wanted", required=True)
    names = {"images": ("archive", "data"), "run": ("data", "teacher", "out"), "table": ("records",)}
    for name, places in names.items():
        command = wanted.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path)
        command.add_argument("--scale", choices=("cpu", "gpu"), required=True)
    wanted.choices["table"].add_argument("page", type=Path, nargs="?")
    asked = parser.parse_args()
    try:
        sys.exit(do(asked))
    except EdgeproofError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


def do(asked: argparse.Namespace) -> int:
    """Do what is asked; return 1 if a cell failed."""
    study = load_study()
    scale = study.scale[asked.scale]
    if asked.wanted == "images":
        unpack(asked.archive, asked.data, scale.a_class)
    elif asked.wanted == "run":
        return min(run(study, scale, asked.data, asked.teacher, asked.out), 1)
    else:
        records = read_records(asked.records)
        check_records(study, scale, records)
        done = {record.name for record in records}
        page = to_markdown(study, records, [cell.name for cell in cells(study, scale) if cell.name not in done])
        print(page)
        if asked.page:
            write_atomic(asked.page, page.encode())
    return 0


if __name__ == "__main__":
    main()
