"""A training method: what its search maximises, and what its training minimises at the point found."""

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
    """What a method may use for one batch: images, labels and the two networks.

    The search sees the student in the method's search mode; the outer loss sees it in training mode. The teacher
    is frozen in both, but a gradient flows through it to the images.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        student: images to logits [B, K].
        teacher: likewise; None for a method without a teacher.
        options: the method's table in the recipe.
        progress: the fraction of the run's steps that is done, from 0 to 1.
        smoothing: label smoothing in the outer loss; the search never smooths.
        known_teacher: T(x) if it is already known, else None until it is requested.
        elapsed: the progress as a float64 scalar on the device, for values that change with every step. A captured
            step reads it again in each replay, while it would keep the `progress` of its capture. None creates one.

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
        """Return the teacher's logits. Only a method that needs a teacher, or averages its own, may ask."""
        assert self._teacher is not None
        return self._teacher(images)

    @property
    def teacher_clean(self) -> Tensor:
        """T(x) without gradient: computed at the first use, once per batch."""
        if self.known_teacher is None:
            with torch.no_grad():
                self.known_teacher = self.teacher(self.images)
        return self.known_teacher

    @cached_property
    def student_clean(self) -> Tensor:
        """S(x), computed once for each student, at the first use; a constant in the search, not in the outer loss."""
        return self.student(self.images)

    def once_at(self, points: Tensor) -> View:
        """Return the same batch, with networks that compute their answers at `points` only once."""
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
"""(view, points x' [B, C, H, W]) to one value per image [B]."""


@dataclass(frozen=True)
class Schedule:
    """The published training of a method: the defaults of recipes.

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
    """How a step of the method's published code differs from ours; see pipeline/methods/published.py.

    Args:
        clamped: whether it takes the first gradient at a start within the ball and [0, 1].
        clean_first: whether the learning student sees the clean images before the searched ones.
        clean: how often it sees the clean images; each time updates its running statistics.
        second_phase: how much more often after introspection has started.

    """

    clamped: bool = False
    clean_first: bool = False
    clean: int = 1
    second_phase: int = 0


@dataclass(frozen=True)
class Method:
    """One row of the table of methods.

    Args:
        objective: what the search maximises at x'.
        loss: what the training minimises at the x' that was found.
        start: where the search starts: 'gaussian' x + 0.001 N(0, 1), or 'uniform' x + U(-eps, eps).
        search_mode: the student's mode in the search; 'train' updates its running statistics.
        reduction: the default, from the method's published code; a recipe may override it.
        schedule: likewise, with epochs, milestones and weight decay.
        options: the fields of `[method.<name>]`.
        needs_teacher: whether a recipe must name one.
        averages: whether the teacher is an average of the student's own weights, with the decay `options.decay`.
        has_labels: whether the outer loss has a cross-entropy with the labels, which label smoothing needs.
        does: what it trains by, in half a sentence for `edgeproof recipes`.
        source: the paper, and whether paper or code is followed where they differ.
        published: the step of its published code; None if there is no code.
        clamped: whether the search starts within the ball and [0, 1].
        phase: (options, progress) to the phase of training. Within a phase, the loss does not depend on `progress`.

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
    does: str
    source: str
    published: Published | None = None
    clamped: bool = True
    averages: bool = False
    phase: Callable[[Any, float], bool] = lambda options, progress: False
