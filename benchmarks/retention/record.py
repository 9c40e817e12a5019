"""retention.json: every cell of every student, image by image; what table and pictures are made of."""

from typing import Literal

from pydantic import Field

from benchmarks.retention.artifacts import StudentCard
from benchmarks.retention.cells import Cell
from runtime.records.request import GradientSource
from runtime.spec import Frozen, Text


class Measured(Frozen):
    """A student, the layers of its mixed int8 that stay in fp16, and its cells by the name of the format and route."""

    card: StudentCard
    kept_fp16: tuple[Text, ...] | None
    cells: dict[Text, dict[GradientSource, Cell]]


class Record(Frozen):
    """All of it."""

    schema_: Literal["edgeproof.retention/1"] = Field(alias="schema", default="edgeproof.retention/1")
    students: tuple[Measured, ...]
