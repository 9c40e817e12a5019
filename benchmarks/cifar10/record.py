"""What a cell reached, small enough to be kept beside the table: figures, every image's answers, machine and hours."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.cifar10.study import Cell, Study, cell_name
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.runs.directory import CHECKPOINTS, Summary, read_summary
from runtime.bundle.opening import Bundle, open_bundle
from runtime.errors import BadData
from runtime.files import sha256
from runtime.spec import DataRecord, Digest, Document, Frozen, Name, Text, first_fault
from runtime.suite.evidence import STANDS
from runtime.verdict.paired import Finished, read_reference

STOOD = "1"
"""Of an image's answers: it is classified correctly there. '0' says that it is not."""


class Judged(Frozen):
    """One attack on the exported artifact: `clean` and `stands` hold one digit an image, in the order of the set."""

    artifact_sha256: Digest
    clean: Text
    stands: Text
    doubts: tuple[Text, ...]
    seconds: float
    device: Document
    software: dict[Text, Text]


class Record(Frozen):
    """record.json: one cell of the table; `judged` by attack. A record of an earlier version has no `test_data`."""

    row: Name
    method: Text
    student: Name
    seed: int
    width: float
    epochs: int
    schedule: Text
    search_steps: int
    training: Summary
    test_data: DataRecord | None = None
    judged: dict[Name, Judged]

    @property
    def name(self) -> str:
        """That of its cell."""
        return cell_name(self.student, self.row, self.seed)

    @property
    def n(self) -> int:
        """The number of images that were judged."""
        return len(next(iter(self.judged.values())).clean)

    @property
    def hours(self) -> float:
        """Training and judging, by the clock."""
        return (self.training.seconds + sum(judged.seconds for judged in self.judged.values())) / 3600


def record_of(study: Study, cell: Cell, place: Path) -> Record:
    """Read a finished cell from its directory.

    Raises:
        BadInput: a file is damaged; the bundle is not of this run, or the attacks not of this bundle; or they were on
            different images.

    """
    recipe, summary = load_recipe(str(place / "run" / "recipe.toml")), read_summary(place / "run")
    if summary is None:
        raise BadData(f"{place / 'run'} is not finished", hint="run the cell again")
    reports = {attack: read_reference(place / attack) for attack in study.attacks}
    if len({each.report.artifact.sha256 for each in reports.values()}) > 1:
        raise BadData(f"{place}: its attacks were of two artifacts", hint="remove the older report")
    _check_artifact(place, next(iter(reports.values())).report.artifact.sha256)
    tested, *others = (each.report.data for each in reports.values())
    if any(other != tested for other in others):
        raise BadData(f"{place}: its attacks were on different images", hint="remove the older report")
    return Record(
        row=cell.row.name,
        method=cell.row.method,
        student=cell.student,
        seed=cell.seed,
        **settings_of(recipe),
        training=summary,
        test_data=tested,
        judged={attack: judged_in(finished) for attack, finished in reports.items()},
    )


def check_bundle(place: Path) -> Bundle:
    """Open the bundle of a cell.

    Raises:
        BadInput: it is damaged, or was not exported from the run beside it.

    """
    bundle = open_bundle(place / "bundle")
    provenance = bundle.manifest.provenance
    trained = sha256((place / "run" / CHECKPOINTS["best"]).read_bytes())
    if provenance is None or provenance.checkpoint_sha256 != trained:
        raise BadData(f"{place}: its bundle is of another training", hint="remove the bundle and the reports")
    return bundle


def _check_artifact(place: Path, judged: str) -> None:
    """Raise `BadData` unless the artifact of the cell's bundle is the `judged` one."""
    manifest = check_bundle(place).manifest
    if manifest.files[manifest.graphs[manifest.ships].forward].sha256 != judged:
        raise BadData(f"{place}: its attacks were of another bundle", hint="remove the reports")


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a record holds of a recipe."""
    return {
        "width": recipe.student.width,
        "epochs": recipe.train.epochs,
        "schedule": recipe.train.schedule,
        "search_steps": recipe.search.steps,
    }


def judged_in(finished: Finished) -> Judged:
    """Return what a record holds of one run of `edgeproof verify` of one attack."""
    report = finished.report
    return Judged(
        artifact_sha256=report.artifact.sha256,
        clean=digits(finished.images["broken_by"] >= STANDS),
        stands=digits(finished.robust),
        doubts=tuple(warning.message for warning in report.warnings if warning.blocking),
        seconds=report.seconds,
        device=report.device,
        software=report.software,
    )


def digits(flags: Iterable[bool]) -> str:
    """Return flags [N] as N digits."""
    return "".join(STOOD if flag else "0" for flag in flags)


def read_records(directory: Path) -> list[Record]:
    """Read every record of a directory, by name.

    Raises:
        BadData: one is damaged.

    """
    records = []
    for file in sorted(directory.glob("*.json")):
        try:
            records.append(Record.model_validate_json(file.read_bytes()))
        except ValidationError as error:
            raise BadData(f"{file}: {first_fault(error)}", hint="make it again from its cell") from None
    return records
