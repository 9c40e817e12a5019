"""The training methods, for a training loop of your own: each gives the loss of one batch.

    method = edgeproof.methods.AdaAD(student, teacher, eps=8 / 255, steps=10)
    for images, labels in loader:
        optimizer.zero_grad()
        method.loss(images, labels).backward()
        optimizer.step()

Networks map images in [0, 1], float32 [B, C, H, W], to logits [B, K]. Put the normalisation inside, as the first layer,
so that eps means the same for student, teacher and verdict. `edgeproof distill` trains with the same methods.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from edgeproof.arguments import filled
from edgeproof.batches import check_form, check_images, check_labels
from edgeproof.networks import check_module, count_logits, in_eval_mode
from pipeline.methods import METHODS, View
from pipeline.methods.adr import AdrOptions
from pipeline.methods.igdm import with_igdm
from pipeline.methods.losses import Reduction, reduce
from pipeline.methods.published import Start, started
from pipeline.methods.search import STARTS, SearchSpec, search
from pipeline.training.mean_teacher import MeanTeacher
from runtime.errors import BadModel, UsageFault
from runtime.spec import Frozen, fault_words
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from pipeline.methods.method import Method

__all__ = ["ADR", "AKD", "ARD", "IAD", "PGDAT", "RSLAD", "TRADES", "AdaAD", "AdaIAD", "TrainingMethod"]


class TrainingMethod:
    """The base of all methods: `loss` searches a point x' within eps of each image, and returns the loss there.

    Args:
        student: the network that learns. It stays in the mode in which you put it.
        teacher: the robust network to learn from, for methods that take one. It is put into evaluation mode, and its
            weights are frozen.
        eps: L-infinity radius of the search, on images in [0, 1].
        step: size of one step of the search; by default eps / 4, which is 2/255 for 8/255.
        steps: number of steps of the search.
        reduction: 'batchmean', or 'mean', which also divides by the number of classes; by default as in the published
            code.
        start: 'clamped', or 'published' for the step of the published code (docs/recipes.md).
        igdm: weight of IGDM's term (Lee et al., ICLR 2025), for methods with a teacher; None adds no term.
        seed: seeds the noise with which each search starts.
        options: the method's own options, as in `[method.<name>]` of a recipe, such as `alpha` of AdaAD or `beta` of
            TRADES.

    Raises:
        UsageFault: an option is unknown or out of range.

    """

    name: ClassVar[str]

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        eps: float = 8 / 255,
        step: float | None = None,
        steps: int = 10,
        reduction: Reduction | None = None,
        start: Start = "clamped",
        igdm: float | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        method = METHODS[self.name]
        if method.needs_teacher != (teacher is not None):
            takes = "a teacher" if method.needs_teacher else "no teacher"
            raise UsageFault(f"{self.name} takes {takes}", hint=_call(type(self).__name__, method))
        if igdm is not None and not method.needs_teacher:
            raise UsageFault(f"igdm matches the gradient of a teacher, and {self.name} has none", hint="leave igdm out")
        if start == "published" and method.published is None:
            raise UsageFault(f"{self.name} has no published code to start as", hint="leave start at 'clamped'")
        check_module(student, "student")
        if teacher is not None:
            check_module(teacher, "teacher")
        self.student, self.teacher = student, teacher
        try:
            self.options = method.options(**options)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            known = method.options.model_fields
            wrong = "no such option" + did_you_mean(place, known) if place not in known else fault_words(first)
            raise UsageFault(f"{self.name}: {place}: {wrong}", hint=_known(method)) from None
        chosen = filled(_Chosen, {"reduction": reduction, "start": start, "igdm": igdm})
        self.method: Method = with_igdm(started(method, chosen.start), chosen.igdm)
        self.spec = filled(SearchSpec, {"eps": eps, "step": eps / 4 if step is None else step, "steps": steps})
        self.reduction: Reduction = reduction or method.reduction
        self._changes = self.method.phase(self.options, 1.0) or self.method.averages or igdm is not None
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._classes: int | None = None  # known after the first batch
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def loss(self, images: Tensor, labels: Tensor, *, progress: float | None = None) -> Tensor:
        """Search x' for each image of a batch, and return the loss there: a scalar to call `backward` on.

        Args:
            images: float32 [B, C, H, W] in [0, 1], on the student's device.
            labels: int64 [B].
            progress: the fraction of the training that is done, from 0 to 1. Methods that change during training need
                it: IAD and AdaIAD (introspection starts at 0.3), ADR, and any method with `igdm`.

        Shape, type and device are checked in every batch. The values (images in [0, 1], labels below the number of
        classes) are checked in every batch on a CPU. On a GPU they are checked in the first batch only, because
        otherwise the CPU would wait for the GPU in each step. The networks are checked with the first batch.

        Raises:
            BadData: images are not in [0, 1], labels are not classes of the student, or the batch is on another device.
            BadModel: student or teacher do not take the images, or do not return logits.
            UsageFault: the method needs `progress`.

        """
        view, points = self._searched(images, labels, progress)
        student = _Counted(self.student)
        view.student = student
        values = self.method.loss(view, points)
        return reduce(values, self.reduction, student.classes)

    def search(self, images: Tensor, labels: Tensor, *, progress: float | None = None) -> Tensor:
        """Return the points x' [B, C, H, W] at which `loss` computes the loss. Arguments and errors are the same."""
        return self._searched(images, labels, progress)[1]

    def _searched(self, images: Tensor, labels: Tensor, progress: float | None) -> tuple[View, Tensor]:
        """Return the batch as the search sees it, and the points x' found."""
        self._check(images, labels, progress)
        view = self._view(images, labels, progress)
        noise = STARTS[self.method.start](images, self.spec.eps, self._noise(images.device))
        with in_eval_mode(self.student) if self.method.search_mode == "eval" else nullcontext():
            points = search(self.method.objective, view, noise, self.spec, self.method.clamped)
        # What the student answered in the search is not what it answers as it learns; the frozen teacher's T(x) is.
        return self._view(images, labels, progress, view.known_teacher), points

    def _view(self, images: Tensor, labels: Tensor, progress: float | None, known: Tensor | None = None) -> View:
        return View(images, labels, self.student, self.teacher, self.options, progress or 0.0, known_teacher=known)

    def _check(self, images: Tensor, labels: Tensor, progress: float | None) -> None:
        if self._changes and progress is None:
            raise UsageFault(
                f"{self.name} changes as training goes on", hint="loss(images, labels, progress=epoch / epochs)"
            )
        if progress is not None and not 0 <= progress <= 1:
            raise UsageFault(f"progress is {progress}", hint="the fraction of all training that lies behind: 0 to 1")
        networks = [self.student] if self.teacher is None else [self.student, self.teacher]
        check_form(images, labels, networks)
        first = self._classes is None
        if first or images.device.type == "cpu":  # else the CPU would wait for the GPU in each step
            check_images(images)
        if self._classes is None:
            self._classes = self._count_classes(images[:1])
        if first or images.device.type == "cpu":
            check_labels(labels, self._classes)

    def _count_classes(self, image: Tensor) -> int:
        """Return the number of logits of student and teacher. Raises the same errors as `loss`."""
        classes = count_logits(self.student, image, "student")
        if self.teacher is not None and (taught := count_logits(self.teacher, image, "teacher")) != classes:
            raise BadModel(f"the student gives {classes} logits, the teacher {taught}", hint="they share their classes")
        return classes

    def _noise(self, device: torch.device) -> torch.Generator:
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return self._generator


class AdaAD(TrainingMethod):
    """Search where student and teacher disagree most, and align them there (Huang et al., CVPR 2023)."""

    name = "adaad"


class AdaIAD(TrainingMethod):
    """AdaAD with introspection after 0.3 of the training (Huang et al., CVPR 2023)."""

    name = "adaiad"


class ARD(TrainingMethod):
    """The student at x' learns the teacher's answer at x (Goldblum et al., AAAI 2020)."""

    name = "ard"


class IAD(TrainingMethod):
    """The better the teacher answers at x', the more the student follows it (Zhu et al., ICLR 2022)."""

    name = "iad"


class RSLAD(TrainingMethod):
    """The teacher's soft labels in search and loss (Zi et al., ICCV 2021)."""

    name = "rslad"


class AKD(TrainingMethod):
    """Labels mixed with the teacher's answer at x' (Maroto et al., 2022)."""

    name = "akd"


class PGDAT(TrainingMethod):
    """PGD adversarial training (Madry et al., ICLR 2018); it takes no teacher."""

    name = "pgd-at"


class TRADES(TrainingMethod):
    """Cross-entropy at x, and agreement of x and x' (Zhang et al., ICML 2019); it takes no teacher."""

    name = "trades"


class ADR(TrainingMethod):
    """PGD adversarial training on labels that an average of the student's weights softens (Wu et al., ICLR 2024).

    Args:
        student: the network that learns.
        optimizer: the optimizer of your loop. The average follows the student after each of its steps.
        settings: the keyword arguments of `TrainingMethod`.

    Raises:
        UsageFault: `optimizer` is not an optimizer; or see `TrainingMethod`.

    """

    name = "adr"

    def __init__(self, student: nn.Module, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageFault(
                f"the optimizer of adr is of type {type(optimizer).__name__}",
                hint="ADR(student, optimizer): no teacher",
            )
        super().__init__(student, **settings)
        assert isinstance(self.options, AdrOptions)
        average = MeanTeacher(student, self.options.decay)
        self.teacher = average.network
        optimizer.register_step_post_hook(lambda *_: average.follow())


class _Chosen(Frozen):
    reduction: Reduction | None = None
    start: Start = "clamped"
    igdm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class _Counted:
    """A network that remembers the number of its logits."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.classes = network, 0

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        self.classes = logits.shape[1]
        return logits


def _call(name: str, method: Method) -> str:
    beside = ", teacher" if method.needs_teacher else ", optimizer" if method.averages else ""
    return f"{name}(student{beside})"


def _known(method: Method) -> str:
    own = ", ".join(method.options.model_fields)
    return f"its options: {own}" if own else "it has no options of its own"
