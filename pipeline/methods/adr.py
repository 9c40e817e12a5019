"""ADR (Wu et al., ICLR 2024, arXiv 2305.12118): PGD-AT on labels softened by an average of the student's weights.

Numbers and step are those of the published code (github.com/yuyuwu5/ADR): the average, in eval mode, follows weights
and running statistics after every step, starting from the initial ones. The search uses the same labels, with the
student in train mode. Tests compare both with that code. We had no access to the numbering of the paper's equations.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.methods.losses import cross_entropy, one_hot, probabilities
from pipeline.methods.method import Method, Published, Schedule, View
from runtime.spec import Fraction, Frozen

Temperature = Annotated[float, Field(gt=0)]


class AdrOptions(Frozen):
    """The fields of `[method.adr]`: the decay of the average per step, and two values from start to end.

    `temperature` divides the logits of the average. `interpolation` is its largest share of a label. Both move from the
    first to the second value along half a cosine. The defaults are those of the published code on CIFAR-10. On
    CIFAR-100 its temperature falls from 1.5 to 1.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    temperature: tuple[Temperature, Temperature] = (2.5, 2.0)
    interpolation: tuple[Fraction, Fraction] = (0.7, 0.95)


def _label(view: View) -> Tensor:
    """Return s A + (1 - s) onehot(y), without gradient: A = softmax(z / t) of the average at the clean image.

    Its share s = clip(l - (max_c A_c - A_y), 0, 1) is smaller where the average is more confident in another class than
    in y.
    """
    options: AdrOptions = view.options
    average = probabilities(view.teacher_clean, _annealed(options.temperature, view.elapsed))
    of_label = average.gather(1, view.labels[:, None])
    lead = average.amax(dim=1, keepdim=True) - of_label
    share = (_annealed(options.interpolation, view.elapsed) - lead).clamp(0, 1)
    return share * average + (1 - share) * one_hot(view.labels, average.shape[1])


def _annealed(ends: tuple[float, float], elapsed: Tensor) -> Tensor:
    """Return the value that half a cosine has reached between both ends."""
    first, last = ends
    return last + (first - last) * (1 + torch.cos(math.pi * elapsed)) / 2


def _error(view: View, points: Tensor) -> Tensor:
    """CE(S(x'), label): maximised by the search, minimised by the training."""
    return cross_entropy(view.student(points), _label(view))


ADR = Method(
    objective=_error,
    loss=_error,
    start="uniform",
    search_mode="train",
    reduction="batchmean",
    schedule=Schedule(epochs=200, milestones=(100, 150), weight_decay=5e-4),
    options=AdrOptions,
    needs_teacher=False,
    has_labels=False,
    does="PGD-AT on labels that an average of the student's own weights softens",
    source="Wu et al., ICLR 2024, on PGD-AT; as in the published code",
    published=Published(clamped=True, clean=0),
    averages=True,
)
