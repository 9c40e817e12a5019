"""SCORE (Pang et al., ICML 2022, arXiv 2202.10103): TRADES with squared distances of probabilities; no teacher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.methods.losses import one_hot, probabilities
from pipeline.methods.method import Method, Schedule, View
from runtime.spec import Frozen


class ScoreOptions(Frozen):
    """The fields of `[method.score]`: `beta` is the weight of the agreement against the label."""

    beta: Annotated[float, Field(ge=0)] = 3.0


def _disagreement(view: View, points: Tensor) -> Tensor:
    """|S(x) - S(x')|^2; in the outer loss its gradient flows through S(x) too."""
    return _squared(probabilities(view.student_clean), probabilities(view.student(points)))


def _loss(view: View, points: Tensor) -> Tensor:
    """|y - S(x)|^2 + beta |S(x) - S(x')|^2."""
    options: ScoreOptions = view.options
    clean = probabilities(view.student_clean)
    labels = one_hot(view.labels, clean.shape[1], view.smoothing)
    return _squared(labels, clean) + options.beta * _disagreement(view, points)


def _squared(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).square().sum(dim=1)


SCORE = Method(
    objective=_disagreement,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="batchmean",
    schedule=Schedule(epochs=110, milestones=(100, 105), weight_decay=5e-4),
    options=ScoreOptions,
    needs_teacher=False,
    has_labels=True,
    does="TRADES with squared distances of probabilities",
    source="after Pang et al., ICML 2022; beta and schedule are our choice",
)
