"""The tables of a recipe, each checked by itself; `pipeline.recipe.schema` checks them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from pipeline.data.augment import Augment, Switch
from pipeline.data.batches import Place
from pipeline.methods import METHODS, Method
from pipeline.methods.igdm import with_igdm
from pipeline.methods.losses import Reduction
from pipeline.methods.published import Start, started
from pipeline.methods.search import Precision
from pipeline.models import Arch, Blueprint, Depth, Width, known_depth
from pipeline.models.factory import Factory
from pipeline.recipe.file import USUAL_SCHEDULE
from pipeline.recipe.problems import UNKNOWN_METHOD
from runtime.images.preprocessing import Size
from runtime.spec import Digest, Frozen, Text

RateSchedule = Literal["steps", "one-cycle", "cosine"]
USUAL_DECAY = 0.999
"""Decay of the weight average in each step."""


def usual_decay(value: Any) -> Any:
    """Return the default decay for true, None for false, and any other value unchanged."""
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
    `awp` is the length of an adversarial perturbation of the weights, relative to that of each weight tensor.
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
    awp: Annotated[float, Field(gt=0, lt=1)] | None = None
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
    """[int8]: train a finished student further, through the rounding of its int8 export.

    The student starts with the weights of `start`, a run or a checkpoint, whose network must be that of the recipe.
    `images` training images set the ranges, again after every epoch.
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
