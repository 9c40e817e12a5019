"""Studies: TOML files that define the runs of a table, checked as a whole and expanded into cells."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.methods import METHODS
from pipeline.models import NETWORKS
from pipeline.recipe.problems import keys, message, path
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.recipe.source import read_source
from pipeline.study.published import published
from runtime.attacks import NAMES
from runtime.errors import BadRecipe
from runtime.spec import Fraction, Frozen, Name, Text

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
if TYPE_CHECKING:
    MethodName = str
    StudentName = str
    AttackName = str
else:  # the tables are the lists of choices
    MethodName, StudentName, AttackName = Literal[tuple(METHODS)], Literal[tuple(NETWORKS)], Literal[NAMES]

RUN = "run"
"""Subdirectory of a cell's directory that holds its training run; each evaluation has one beside it."""


class Own(Frozen):
    """[method.NAME] or [student.NAME]: settings for one method or student only."""

    set: tuple[Text, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None


class Evaluation(Frozen):
    """[[evaluation]]: one run of the attack suite on each cell's best checkpoint.

    It uses the first `n` test images. `batch` affects memory and speed, never a figure.
    """

    name: Name
    attacks: Annotated[tuple[AttackName, ...], Field(min_length=1)]
    n: Annotated[int, Field(gt=0)] | None = None
    batch: Annotated[int, Field(gt=0)] = 64

    @field_validator("name")
    @classmethod
    def _beside_the_run(cls, name: str) -> str:
        if name == RUN:
            raise ValueError(f"{RUN!r} is reserved for the training run")
        return name


class Study(Frozen):
    """Methods x students x radii x seeds over one recipe, and how every cell is judged.

    `set` holds overrides in the form of `--set`. `radii` are search radii; without them, the recipe's search is used.
    `step` is the search step as a fraction of the radius. Differences are taken from the method `reference`, at the
    first radius. `published` names the figures that are shown beside the measured ones.
    """

    name: Name
    title: Text = ""
    recipe: Text
    set: tuple[Text, ...] = ()
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)]
    students: Annotated[tuple[StudentName, ...], Field(min_length=1)]
    radii: tuple[Fraction, ...] = ()
    step: Positive | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    method: dict[MethodName, Own] = Field(default_factory=dict)
    student: dict[StudentName, Own] = Field(default_factory=dict)
    evaluation: Annotated[tuple[Evaluation, ...], Field(min_length=1)]
    reference: MethodName = "adaad"
    published: Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.radii and self.step is None:
            raise ValueError("radii need a step: the size of a search step as a fraction of the radius")
        names = [evaluation.name for evaluation in self.evaluation]
        if len(set(names)) < len(names):
            raise ValueError("two evaluations have the same name")
        if self.published is not None and self.published not in published():
            raise ValueError(f"published: must be one of {', '.join(published())}")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a study: its place in the table, and the recipe that makes it."""

    method: str
    student: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """The recipe's name, which is that of the cell's directory."""
        return self.recipe.name

    @property
    def radius(self) -> float:
        """The search radius."""
        return self.recipe.search.eps


def load_study(source: str) -> Study:
    """Load a study of this package by name, or a TOML file by path.

    Raises:
        BadRecipe: no such study, not TOML, or wrong keys or values, each with its path.

    """
    try:
        table = tomllib.loads(read_source(source, "study"))
        return Study.model_validate(table)
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"study {source}: {error}") from None
    except ValidationError as error:
        problems = "\n".join(
            f"  {path(item['loc']) or 'study'}: {message(item, keys(Study, item['loc']))}" for item in error.errors()
        )
        raise BadRecipe(f"study {source}:\n{problems}", hint="docs/studies.md lists every key") from None


def expand(study: Study) -> list[Cell]:
    """Return every cell with its resolved recipe: the first seeds of all rows before any second seed.

    Raises:
        BadRecipe: a cell's recipe cannot be resolved, or two cells would have the same name, and so the same directory.

    """
    cells = [
        _cell(study, method, student, radius, rank, seed)
        for student, method, radius in product(study.students, study.methods, study.radii or (None,))
        for rank, seed in enumerate(_seeds(study, method, student))
    ]
    for name, times in Counter(cell.name for _, cell in cells).items():
        if times > 1:
            raise BadRecipe(
                f"study {study.name} has the cell {name} twice", hint="name every method, student, radius and seed once"
            )
    return [cell for _, cell in sorted(cells, key=lambda ranked: ranked[0])]


def _seeds(study: Study, method: str, student: str) -> tuple[int, ...]:
    own = study.method.get(method, Own()).seeds or study.student.get(student, Own()).seeds
    return own or study.seeds


def _cell(study: Study, method: str, student: str, radius: float | None, rank: int, seed: int) -> tuple[int, Cell]:
    name = f"{student}-{method}" + (f"-{255 * radius:g}" if radius is not None else "") + f"-seed{seed}"
    overrides = [*study.set, *study.student.get(student, Own()).set, *study.method.get(method, Own()).set]
    overrides += [f"name={name}", f"seed={seed}", f"method.name={method}", f"student.arch={student}"]
    if radius is not None:
        assert study.step is not None
        overrides += [f"search.eps={radius!r}", f"search.step={radius * study.step!r}"]
    return rank, Cell(method, student, seed, load_recipe(study.recipe, overrides))
