"""retention.json: every cell of every student, image by image; what table and pictures are made of."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmarks.retention.cells import Cell
from runtime.records.request import GradientSource
from runtime.spec import Digest, Frozen, Text


class StudentCard(Frozen):
    """What a student is; `trained` is its method, or 'clean'."""

    name: Text
    arch: Text
    width: float
    trained: Text
    epochs: int
    data: Text
    eps: float
    n: int
    kept_fp16: tuple[Text, ...]
    checkpoint_sha256: Digest
    recipe_sha256: Digest


class Measured(Frozen):
    """A student and its cells, by the name of the format and the route."""

    card: StudentCard
    cells: dict[Text, dict[GradientSource, Cell]]


class Record(Frozen):
    """All of it."""

    schema_: Literal["edgeproof.retention/1"] = Field(alias="schema", default="edgeproof.retention/1")
    students: tuple[Measured, ...]


def student_card(directory: Path) -> StudentCard:
    """Read what `export_student` wrote beside the bundles."""
    return StudentCard.model_validate_json((directory / "student.json").read_bytes())
