"""Recipes: TOML files that describe a run completely, and are checked as a whole before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from pipeline.data.augment import Augment, Switch
from pipeline.data.batches import Place
from pipeline.data.extra import extra_of
from pipeline.methods import METHODS, Method
from pipeline.methods.igdm import with_igdm
from pipeline.methods.losses import Reduction
from pipeline.methods.published import Start, started
from pipeline.methods.search import Precision, SearchSpec
from pipeline.models import Arch, Blueprint, Depth, Width, known_depth
from pipeline.models.factory import Factory
from pipeline.recipe.file import USUAL_SCHEDULE, in_place, read_recipe
from pipeline.recipe.problems import UNKNOWN_METHOD, keys, message, path
from runtime.errors import BadRecipe
from runtime.images.preprocessing import Size
from runtime.spec import Digest, Frozen, Gate, Name, Text, ThreatModel

RateSchedule = Literal["steps", "one-cycle", "cosine"]
RISES = {"one-cycle": 0.25}
"""The fraction of all epochs in which the learning rate rises, if the recipe sets no warm-up; by schedule."""
USUAL_DECAY = 0.999
"""Decay of the weight average in each step."""


def usual_decay(value: Any) -> Any:
    """Return the decay that `ema = true` stands for, none of false; what is no truth value as it is."""
    return {True: USUAL_DECAY, False: None}[value] if isinstance(value, bool) else value


class ExtraTable(Frozen):
    """[data.extra]: an .npz of further training images of the same shape and classes, and their share of each batch."""

    path: Path
    share: Annotated[float, Field(gt=0, lt=1)]


class DataTable(Frozen):
    """[data]: a data set by name or path. `holdout` training images are held out to choose the checkpoint.

    `augment` is the augmentation of training images, and `augment_switch` says after how many epochs another one takes
    over. `crop` applies to 'pad-crop' only; `flip` mirrors half of the images with every augmentation.

    `size` is the size to which pictures of a folder are resized and cropped, in training and at every evaluation.
    `place` says where the training images are kept: on the `device`, or outside, to be streamed to it (`stream`);
    `auto` chooses the device if they fit.
    """

    name: Text | None = None
    path: Path | None = None
    size: Size | None = None
    holdout: Annotated[int, Field(gt=0)] = 1000
    crop: Annotated[int, Field(ge=0)] = 4
    flip: bool = True
    augment: Augment = "pad-crop"
    augment_switch: Switch | None = None
    place: Place = "auto"
    extra: ExtraTable | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DataTable:
        if (self.name is None) == (self.path is None):
            raise ValueError("give either name or path")
        if self.size is not None and self.path is None:
            raise ValueError("size applies to the pictures of a folder: give its path")
        return self


class StudentTable(Blueprint):
    """[student]: the network that is trained."""


class TeacherTable(Frozen):
    """[teacher]: a known name, or the path of a checkpoint.

    A known name is loaded from its default location, or from `path` if that is given too. A path alone is a run or a
    checkpoint of this project. With `arch`, it is a foreign PyTorch checkpoint of that network, which may need `width`,
    `depth`, and `mean` and `std` if its images were normalised outside of it. With `factory`, it is a checkpoint of the
    network that this function makes. `sha256` is the digest that the file must have.
    """

    name: Text | None = None
    path: Path | None = None
    arch: Arch | None = None
    width: Width | None = None
    depth: Depth = None
    factory: Factory | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    sha256: Digest | None = None

    _known_depth = field_validator("depth")(known_depth)

    @model_validator(mode="after")
    def _one_kind(self) -> TeacherTable:
        if self.name is None and self.path is None:
            raise ValueError("give a name or a path")
        for kind in ("arch", "factory"):
            if getattr(self, kind) is not None and (self.name is not None or self.path is None):
                raise ValueError(f"{kind} is for a foreign checkpoint: give its path, and no name")
        described = [field for field in ("width", "depth", "mean", "std") if getattr(self, field) is not None]
        if self.arch is None and self.factory is None and described:
            raise ValueError(f"{described[0]} describes a foreign checkpoint: name its arch too")
        if self.arch is not None and self.factory is not None:
            raise ValueError("give either arch or factory")
        return self


class TrainTable(Frozen):
    """[train]: SGD with momentum, also Nesterov's. The learning rate rises in the first `warmup` epochs, then falls.

    It falls tenfold at each milestone (`steps`; in epochs, fractions allowed), linearly to zero at the last epoch
    (`one-cycle`), or along half a cosine (`cosine`). Without a `warmup`, a one-cycle rises for a quarter of the epochs.

    Epochs, milestones, weight decay and reduction default to the method's published ones. Default milestones scale with
    the number of epochs. 'mean' is a tenth of 'batchmean' on ten classes.

    Each device splits its share of a batch into `micro_batches` equal parts, each with its own batch-norm statistics.
    `ema` is the decay of an average of the weights that is evaluated and saved instead of them; true is 0.999.
    """

    epochs: Annotated[int, Field(gt=0)]
    max_steps: Annotated[int, Field(gt=0)] | None = None
    batch: Annotated[int, Field(gt=1)] = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: RateSchedule = USUAL_SCHEDULE
    warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    milestones: tuple[float, ...]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    reduction: Reduction
    precision: Precision = "auto"
    micro_batches: Annotated[int, Field(gt=0)] = 1
    ema: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, BeforeValidator(usual_decay)] = None
    compile: bool = False

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise ValueError("Nesterov needs momentum, and train.momentum is 0")
        return nesterov

    @field_validator("warmup")
    @classmethod
    def _ends(cls, warmup: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs")
        if epochs is not None and warmup >= epochs:
            raise ValueError(f"a warm-up of {warmup:g} of {epochs} epochs leaves none for training")
        return warmup

    @field_validator("milestones")
    @classmethod
    def _fall(cls, milestones: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        schedule = info.data.get("schedule", USUAL_SCHEDULE)
        if milestones and schedule != USUAL_SCHEDULE:
            raise ValueError(f"milestones belong to schedule = {USUAL_SCHEDULE!r}, not to {schedule!r}")
        warmup = info.data.get("warmup", 0.0)
        if milestones and min(milestones) < warmup:
            raise ValueError(f"the milestone {min(milestones):g} is within the warm-up of {warmup:g} epochs")
        return milestones


class Int8Table(Frozen):
    """[int8]: a finished student is trained on through the rounding of its int8 export.

    `start` is the run, or the checkpoint, whose weights the student begins with; its network must be the recipe's own.
    `images` training images set the ranges, anew after every epoch.
    """

    start: Path
    images: Annotated[int, Field(gt=0)] = 512


class ResourcesTable(Frozen):
    """[resources]: what a run uses on a Ray cluster as the cell of a study. It does not define the run.

    It has at most one GPU, or a part of one, since a cell trains on one device. None is one GPU if the cluster has any.
    Other devices and numbers of threads round differently, and a batch that does not fit a shared GPU is halved.
    """

    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0, le=1)] | None = None


class LogTable(Frozen):
    """[log]: trackers that log the run besides its directory. They do not define the run.

    Each needs the extra of its name.
    """

    wandb: Annotated[Text | None, Field(description="the project of Weights & Biases that logs the run")] = None
    mlflow: Annotated[Text | None, Field(description="the URI of the MLflow server that logs the run")] = None


class MethodTable(Frozen):
    """[method]: its name, its own fields in the table of that name, its `start`, and `igdm`.

    'published' is the step of the method's published code: the first gradient of the search may be taken outside of the
    ball and of [0, 1], and clean images are forwarded only for the running statistics. `igdm` is the weight of IGDM at
    the end of the run, in addition to the loss of a method with a teacher.
    """

    name: Text
    start: Start = "clamped"
    igdm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    options: Any

    @model_validator(mode="after")
    def _published_where_there_is_a_code(self) -> MethodTable:
        if self.start == "published" and METHODS[self.name].published is None:
            raise ValueError(f"{self.name} has no published code: leave start at clamped")
        return self

    @field_validator("igdm")
    @classmethod
    def _igdm_where_there_is_a_teacher(cls, igdm: float | None, info: ValidationInfo) -> float | None:
        name = info.data.get("name")
        if igdm is not None and name is not None and not METHODS[name].needs_teacher:
            raise ValueError(f"IGDM matches the gradient of a teacher, and {name} has no teacher")
        return igdm

    def resolved(self) -> Method:
        """Return the method with its start and IGDM applied."""
        return with_igdm(started(METHODS[self.name], self.start), self.igdm)


def _method_table(name: str) -> type[BaseModel]:
    options = METHODS[name].options
    return create_model(
        f"MethodTable[{name}]",
        __base__=MethodTable,
        name=(Literal[name], name),  # type: ignore[arg-type]  # a literal made at run time
        options=(options, Field(alias=name, default_factory=options)),
    )


if TYPE_CHECKING:
    AnyMethod = MethodTable
else:
    AnyMethod = Annotated[
        Union[tuple(Annotated[_method_table(name), Tag(name)] for name in METHODS)],  # noqa: UP007
        Discriminator(
            lambda table: str(table.get("name")) if isinstance(table, Mapping) else getattr(table, "name", None),
            custom_error_type=UNKNOWN_METHOD,
            custom_error_message=f"name one of the methods {', '.join(METHODS)}",
        ),
    ]


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
    """Not saved with the run, nor with what is made of it: it names places of its user's own."""

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
        if self.train.compile:
            raise ValueError("train.compile: [int8] is not compiled: leave one of them out")
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
    """Return the keys of the table that a location of pydantic's lies in."""
    if location[:1] == ("method",):  # then the branch of the union, then what TOML has
        return (
            METHODS[str(location[1])].options.model_fields if len(location) > 3 else ("name", "start", "igdm", *METHODS)
        )
    return keys(Recipe, location)


def _path(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location]
    if parts[:1] == ["method"] and len(parts) > 1 and parts[1] in METHODS:
        del parts[1]  # pydantic names the branch of the union first
    return path(parts) or "recipe"
