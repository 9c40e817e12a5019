"""The study file: which cells there are, and the recipe of each."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Self

import tomli_w
import tomllib
from pydantic import Field, model_validator

from pipeline.recipe.schema import Recipe, load_recipe
from runtime.spec import Frozen, Name, Text

STUDY = Path(__file__).with_name("study.toml")


class Row(Frozen):
    """One row of the table for each student: a method, and what is different about it."""

    name: Name
    method: Text
    set: tuple[Text, ...] = ()


class Scale(Frozen):
    """What a machine carries: seeds, training images of each class, overrides, options of `edgeproof verify`.

    `student` holds overrides of one student's rows, all of them, so that its rows still differ by the method alone.
    """

    seeds: tuple[int, ...]
    a_class: Annotated[int, Field(gt=0)] | None = None
    set: tuple[Text, ...] = ()
    student: dict[Name, tuple[Text, ...]] = Field(default_factory=dict)
    verify: tuple[Text, ...] = ()


class Study(Frozen):
    """The file as a whole; `pairs` name a row and the one that it adds something to."""

    name: Name
    attacks: tuple[Text, ...]
    n: Annotated[int, Field(gt=0)]
    reference: Name
    students: tuple[Name, ...]
    rows: tuple[Row, ...]
    pairs: tuple[tuple[Name, Name], ...]
    recipe: dict[str, Any]
    scale: dict[Name, Scale]

    @model_validator(mode="after")
    def _known_students(self) -> Self:
        for scale in self.scale.values():
            if unknown := set(scale.student) - set(self.students):
                raise ValueError(f"no student is called {', '.join(sorted(unknown))}")
        return self


@dataclass(frozen=True)
class Cell:
    """One run: its row, student and seed."""

    row: Row
    student: str
    seed: int

    @property
    def name(self) -> str:
        """Of its directory and its record."""
        return cell_name(self.student, self.row.name, self.seed)


def cell_name(student: str, row: str, seed: int) -> str:
    """Return the name of a cell."""
    return f"{student}-{row}-seed{seed}"


def load_study(path: Path = STUDY) -> Study:
    """Load the study file."""
    return Study.model_validate(tomllib.loads(path.read_text()))


def cells(study: Study, scale: Scale) -> list[Cell]:
    """Return all cells: the first seed of every student's rows before the second of any."""
    return [Cell(row, student, seed) for seed, student, row in product(scale.seeds, study.students, study.rows)]


def recipe_of(study: Study, scale: Scale, cell: Cell, data: Path, teacher: Path) -> Recipe:
    """Return a cell's recipe, every key filled in.

    Args:
        study: the study.
        scale: what is different on this machine.
        cell: which one.
        data: the image folder.
        teacher: its checkpoint.

    Raises:
        BadRecipe: a key or value is wrong.

    """
    overrides = [
        f"name={cell.name}", f"seed={cell.seed}", f"student.arch={cell.student}", f"method.name={cell.row.method}",
        f"data.path={data}", f"teacher.path={teacher}", *scale.set, *scale.student.get(cell.student, ()), *cell.row.set,
    ]  # fmt: skip
    with TemporaryDirectory() as place:
        base = Path(place, "base.toml")
        base.write_text(tomli_w.dumps(study.recipe))
        return load_recipe(str(base), overrides)
