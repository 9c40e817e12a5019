"""TRADES (Zhang et al. 2019, arXiv 1901.08573): the student should agree with its own clean answer; no teacher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.methods.losses import cross_entropy, kl
from pipeline.methods.method import Method, Published, Schedule, View
from runtime.spec import Frozen


class TradesOptions(Frozen):
    """The fields of `[method.trades]`.

    `beta` is the weight of the consistency term against the cross-entropy of the clean image.
    """

    beta: Annotated[float, Field(ge=0)] = 6.0


def _disagreement(view: View, points: Tensor) -> Tensor:
    """KL(S(x) || S(x')); in the outer loss its gradient flows through S(x) too."""
    return kl(view.student_clean, view.student(points))


def _loss(view: View, points: Tensor) -> Tensor:
    """CE(S(x), y) + beta KL(S(x) || S(x'))."""
    options: TradesOptions = view.options
    labelled = cross_entropy(view.student_clean, view.labels, view.smoothing)
    return labelled + options.beta * _disagreement(view, points)


TRADES = Method(
    objective=_disagreement,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="batchmean",
    schedule=Schedule(epochs=76, milestones=(75,), weight_decay=2e-4),
    options=TradesOptions,
    needs_teacher=False,
    has_labels=True,
    does="cross-entropy at x, and the same answer at the attacked point x' as at x",
    source="Zhang et al., ICML 2019, eq. 5; direction, beta and schedule as in the published code",
    published=Published(clean_first=True, clean=2),
)
