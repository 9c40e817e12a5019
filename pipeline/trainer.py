"""One optimiser step: search the points, lower the loss there."""

from __future__ import annotations

import bisect

import torch
from torch import Tensor, nn

from pipeline.losses import reduce
from pipeline.methods import METHODS, View
from pipeline.models.layers import Folded
from pipeline.precision import arithmetic
from pipeline.recipe import Precision, Recipe, TrainTable
from pipeline.search import search


class Trainer:
    """A student that learns, its frozen folded copy for the search, and a frozen teacher.

    The student is in training mode throughout. A method that searches in eval mode sees `folded`, so that nothing
    in the search can move the student's running statistics; one that searches in train mode sees the student, whose
    running statistics then move with every step of the search.
    """

    def __init__(
        self, recipe: Recipe, student: nn.Module, teacher: nn.Module | None, *, classes: int, precision: Precision
    ) -> None:
        self.recipe, self.classes, self.precision = recipe, classes, precision
        self.method = METHODS[recipe.method.name]
        self.student = student.train()
        self.folded = Folded(student)
        self.teacher = Folded(teacher) if teacher is not None else None
        train = recipe.train
        self.optimiser = torch.optim.SGD(
            student.parameters(), lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay
        )

    def step(self, images: Tensor, labels: Tensor, *, number: int, steps_per_epoch: int, steps: int) -> float:
        """Take optimiser step `number` (from 0) of `steps` on one batch, and return the loss before it.

        The noise of the search follows from (seed, number) alone.
        """
        generator = torch.Generator(images.device).manual_seed(self.recipe.seed * 1_000_003 + number)
        searched: nn.Module = self.folded.refresh() if self.method.search_mode == "eval" else self.student
        view = View(images, labels, searched, self.teacher, self.recipe.method.options, number / steps)
        with arithmetic(self.precision, images.device):
            points = search(self.method.objective, view, self.method.start, self.recipe.search, generator)
            values = self.method.loss(view.with_student(self.student), points)
        loss = reduce(values, self.recipe.train.reduction, self.classes)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe.train, number / steps_per_epoch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.item()


def learning_rate(train: TrainTable, epoch: float) -> float:
    """Return the learning rate at a point in time, in epochs: a tenth less at each milestone passed."""
    return train.lr * 0.1 ** bisect.bisect_right(sorted(train.milestones), epoch)
