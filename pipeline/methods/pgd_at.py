"""PGD adversarial training (Madry et al. 2018, arXiv 1706.06083): cross-entropy in search and loss, no teacher."""

from __future__ import annotations

from torch import Tensor

from pipeline.methods.losses import cross_entropy
from pipeline.methods.method import Method, Published, Schedule, View
from runtime.spec import Frozen


class PgdAtOptions(Frozen):
    """The fields of `[method.pgd-at]`: there are none."""


def classification_error(view: View, points: Tensor) -> Tensor:
    """CE(S(x'), y), which the searches of ARD, IAD and AKD maximise too."""
    return cross_entropy(view.student(points), view.labels)


def _loss(view: View, points: Tensor) -> Tensor:
    """CE(S(x'), y), with label smoothing if the recipe sets it."""
    return cross_entropy(view.student(points), view.labels, view.smoothing)


PGD_AT = Method(
    objective=classification_error,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="batchmean",
    schedule=Schedule(epochs=110, milestones=(100, 105), weight_decay=5e-4),
    options=PgdAtOptions,
    needs_teacher=False,
    has_labels=True,
    does="adversarial training: cross-entropy at the attacked point x'",
    source="Madry et al., ICLR 2018, eq. 2.1; start and batch-norm mode as in the TRADES and AdaAD code",
    published=Published(clamped=True),
)
