"""Recipes: TOML files that describe a run completely, and are checked as a whole before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import tomli_w
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.data.extra import extra_of
from pipeline.methods import METHODS, Method
from pipeline.methods.search import SearchSpec
from pipeline.recipe.file import USUAL_SCHEDULE, in_place, read_recipe
from pipeline.recipe.problems import keys, message, path
from pipeline.recipe.tables import (
    AnyMethod,
    DataTable,
    Int8Table,
    LogTable,
    ResourcesTable,
    StudentTable,
    TeacherTable,
    TrainTable,
)
from runtime.errors import BadRecipe
from runtime.spec import Frozen, Gate, Name, ThreatModel

RISES = {"one-cycle": 0.25}
"""The fraction of all epochs in which the learning rate rises, if the recipe sets no warm-up; by schedule."""


class Recipe(Frozen):
    """A complete training run."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataTable
    student: StudentTable
    method: AnyMethod
    teacher: Annotated[TeacherTable | None, Field(validate_default=True)] = None
    search: SearchSpec = SearchSpec()
    train: TrainTable
    int8: Int8Table | None = None
    threat: ThreatModel = ThreatModel()
    gate: Gate = Gate()
    resources: Annotated[ResourcesTable, Field(exclude=True)] = ResourcesTable()
    """Not saved with the run, which may be resumed elsewhere with other resources."""
    log: Annotated[LogTable, Field(exclude=True)] = LogTable()
    """Not saved with the run or put into a bundle: it names accounts and servers of the user."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_method(cls, recipe: Any) -> Any:
        """Keep only the chosen method's table, and fill in its [train] defaults."""
        method, train = (recipe.get(table) for table in ("method", "train"))
        if not isinstance(method, Mapping) or not isinstance(train, Mapping):
            return recipe
        name = method.get("name")
        if not isinstance(name, str) or name not in METHODS:
            return recipe
        return {
            **recipe,
            "method": {key: value for key, value in method.items() if key == name or key not in METHODS},
            "train": {**_published(METHODS[name], train.get("epochs"), train.get("schedule", USUAL_SCHEDULE)), **train},
        }

    @field_validator("teacher")
    @classmethod
    def _teacher_where_needed(cls, teacher: TeacherTable | None, info: ValidationInfo) -> TeacherTable | None:
        method = info.data.get("method")
        if teacher is None and method is not None and METHODS[method.name].needs_teacher:
            raise ValueError(f"the method {method.name} needs a [teacher]")
        return teacher

    @model_validator(mode="after")
    def _data_fit_training(self) -> Recipe:
        switch, extra, train = self.data.augment_switch, self.data.extra, self.train
        if switch is not None and switch[0] >= train.epochs:
            raise ValueError(f"data.augment_switch is after {switch[0]} epochs, but the run ends after {train.epochs}")
        if extra is not None and not 0 < extra_of(train.batch, extra.share) < train.batch:
            raise ValueError(f"data.extra.share = {extra.share:g} is none or all of a batch of {train.batch} images")
        return self

    @model_validator(mode="after")
    def _int8_fits_training(self) -> Recipe:
        if self.int8 is None:
            return self
        for key, precision in (("train", self.train.precision), ("search", self.search.precision)):
            if precision not in (None, "auto", "fp32"):
                raise ValueError(f"{key}.precision: [int8] rounds in fp32, not in {precision}: leave it at auto")
        if METHODS[self.method.name].averages or self.train.ema is not None:
            what = "train.ema" if self.train.ema is not None else f"the method {self.method.name}"
            raise ValueError(f"{what} averages weights, which [int8] does not round: leave one of them out")
        for key in ("compile", "awp"):
            if getattr(self.train, key):
                raise ValueError(f"train.{key} cannot be combined with [int8]: leave one of them out")
        return self

    @field_validator("train")
    @classmethod
    def _labels_to_smooth(cls, train: TrainTable, info: ValidationInfo) -> TrainTable:
        method = info.data.get("method")
        if train.label_smoothing and method is not None and not METHODS[method.name].has_labels:
            named = ", ".join(name for name, known in METHODS.items() if known.has_labels)
            raise ValueError(f"label_smoothing: the loss of {method.name} has no label; those of {named} have one")
        return train

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved recipe as a TOML table: every default filled in, no None, no [resources], no [log]."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_toml(self) -> str:
        """Return the resolved recipe as a TOML document that loads to the same run."""
        return tomli_w.dumps(self.to_dict())


def _published(method: Method, epochs: Any, schedule: Any) -> dict[str, Any]:
    """Return the [train] defaults of the method's published code, with milestones or warm-up scaled to the epochs."""
    own = method.schedule
    total = epochs if isinstance(epochs, int | float) else own.epochs
    falls = schedule == USUAL_SCHEDULE
    return {
        "epochs": own.epochs,
        "milestones": in_place(own.milestones, own.epochs, total) if falls else (),
        "warmup": total * RISES.get(schedule, 0.0) if isinstance(schedule, str) else 0.0,
        "weight_decay": own.weight_decay,
        "reduction": method.reduction,
    }


def load_recipe(source: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe of this package by name, or a TOML file by path, and apply overrides `path.to.key=value`.

    pipeline/recipe/file.py describes how a recipe builds on another.

    Raises:
        BadRecipe: no such recipe, not TOML, or wrong keys or values: all of them at once, each with its path.

    """
    table, where = read_recipe(source, overrides)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        problems = "\n".join(f"  {_path(item['loc'])}: {message(item, _keys(item['loc']))}" for item in error.errors())
        raise BadRecipe(f"{where}:\n{problems}", hint="docs/recipes.md lists every key") from None


def _keys(location: tuple[int | str, ...]) -> Iterable[str]:
    """Return the keys of the table that contains a location of pydantic's."""
    if location[:1] == ("method",):  # next comes the branch of the union, and then the keys in TOML
        return (
            METHODS[str(location[1])].options.model_fields if len(location) > 3 else ("name", "start", "igdm", *METHODS)
        )
    return keys(Recipe, location)


def _path(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location]
    if parts[:1] == ["method"] and len(parts) > 1 and parts[1] in METHODS:
        del parts[1]  # pydantic names the branch of the union first
    return path(parts) or "recipe"
