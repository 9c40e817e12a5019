"""What a training method is: what it searches for, and what it lowers there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.methods.losses import Reduction
from runtime.spec import Frozen

Logits = Callable[[Tensor], Tensor]


class View:
    """All that a method may look at for one batch: images, labels and the two networks.

    The search sees the student in the method's search mode; the outer loss sees it in training mode. The teacher
    is frozen in both, but a gradient flows through it to the images.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        student: images to logits [B, K].
        teacher: likewise; a method that has none gets None.
        options: the method's own table of the recipe.
        progress: the fraction of all epochs that lies behind, from 0 to 1.
        smoothing: of the labels in the outer loss; the search never smooths.
        known_teacher: T(x) where it is known already, else None until it is asked for.
        elapsed: the progress as a float64 number on the device, for what changes with every step: a captured step
            reads it anew, where it would keep the `progress` of its capture. None makes one.

    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        student: Logits,
        teacher: Logits | None,
        options: Any,
        progress: float,
        smoothing: float = 0.0,
        known_teacher: Tensor | None = None,
        elapsed: Tensor | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.student, self._teacher = student, teacher
        self.options, self.progress, self.smoothing = options, progress, smoothing
        self.known_teacher = known_teacher
        self.elapsed = (
            torch.full((), progress, dtype=torch.float64, device=images.device) if elapsed is None else elapsed
        )

    def teacher(self, images: Tensor) -> Tensor:
        """Return the teacher's logits; a method that neither needs one nor averages its own must not ask."""
        assert self._teacher is not None
        return self._teacher(images)

    @property
    def teacher_clean(self) -> Tensor:
        """T(x) without gradient: computed at the first use, once a batch."""
        if self.known_teacher is None:
            with torch.no_grad():
                self.known_teacher = self.teacher(self.images)
        return self.known_teacher

    @cached_property
    def student_clean(self) -> Tensor:
        """S(x), computed at the first use, once for each student: a constant in the search, not in the outer loss."""
        return self.student(self.images)

    def once_at(self, points: Tensor) -> View:
        """Return the same batch, whose networks compute their answers at `points` once, however often asked."""
        view = copy.copy(self)
        view.student = _OnceAt(points, self.student)
        view._teacher = None if self._teacher is None else _OnceAt(points, self._teacher)
        return view


class _OnceAt:
    """A network that keeps its answer at one tensor."""

    def __init__(self, points: Tensor, network: Logits) -> None:
        self.points, self.network = points, network

    def __call__(self, images: Tensor) -> Tensor:
        return self.answer if images is self.points else self.network(images)

    @cached_property
    def answer(self) -> Tensor:
        return self.network(self.points)


Objective = Callable[[View, Tensor], Tensor]
"""(view, points x' [B, C, H, W]) to one value an image [B]."""


@dataclass(frozen=True)
class Schedule:
    """The published training of a method: what a recipe takes that names none of it.

    Args:
        epochs: how many.
        milestones: the epochs at which the learning rate falls tenfold.
        weight_decay: of SGD.

    """

    epochs: int
    milestones: tuple[int, ...]
    weight_decay: float


@dataclass(frozen=True)
class Published:
    """What the published code of a method does in a step where ours does otherwise; see pipeline/methods/published.py.

    Args:
        clamped: whether it takes the first gradient at a start that lies in the ball and in [0, 1].
        clean_first: whether the student, as it learns, sees the clean images before the searched ones.
        clean: how often it sees the clean images; each time moves its running statistics.
        second_phase: how much more often once introspection has joined.

    """

    clamped: bool = False
    clean_first: bool = False
    clean: int = 1
    second_phase: int = 0


@dataclass(frozen=True)
class Method:
    """One row of the table of methods.

    Args:
        objective: what the search raises at x'.
        loss: what the training lowers at the x' found.
        start: where the search begins: 'gaussian' x + 0.001 N(0, 1), or 'uniform' x + U(-eps, eps).
        search_mode: the student's mode in the search; 'train' moves its running statistics.
        reduction: the default of the method's own code, which a recipe may override.
        schedule: likewise, its epochs, milestones and weight decay.
        options: the fields of `[method.<name>]`.
        needs_teacher: whether a recipe must name one.
        averages: whether the teacher is an average of the student's own weights, which `options.decay` is of.
        has_labels: whether the outer loss has a cross-entropy with the labels, which label smoothing is of.
        source: the paper, and which of paper or code is followed where they differ.
        published: the step of its published code; None where there is no code.
        clamped: whether the search starts in the ball and in [0, 1].
        phase: of (options, progress): what the loss depends on of the progress; it is the same within one.

    """

    objective: Objective
    loss: Objective
    start: Literal["gaussian", "uniform"]
    search_mode: Literal["eval", "train"]
    reduction: Reduction
    schedule: Schedule
    options: type[Frozen]
    needs_teacher: bool
    has_labels: bool
    source: str
    published: Published | None = None
    clamped: bool = True
    averages: bool = False
    phase: Callable[[Any, float], bool] = lambda options, progress: False
