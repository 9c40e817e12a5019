"""AKD (Maroto et al. 2022, arXiv 2203.07159), as we read it: PGD-AT on labels mixed with the teacher's answer at x'."""

from __future__ import annotations

from torch import Tensor

from pipeline.methods.losses import cross_entropy, one_hot, probabilities
from pipeline.methods.method import Method, Schedule, View
from pipeline.methods.pgd_at import classification_error
from runtime.spec import Fraction, Frozen


class AkdOptions(Frozen):
    """The fields of `[method.akd]`: k is the teacher's share of the target; its default is our choice."""

    k: Fraction = 0.5


def _loss(view: View, points: Tensor) -> Tensor:
    """CE(S(x'), k T(x') + (1 - k) onehot(y))."""
    options: AkdOptions = view.options
    teacher = probabilities(view.teacher(points).detach())
    label = one_hot(view.labels, teacher.shape[1], view.smoothing)
    target = options.k * teacher + (1 - options.k) * label
    return cross_entropy(view.student(points), target)


AKD = Method(
    objective=classification_error,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="batchmean",
    schedule=Schedule(epochs=200, milestones=(100, 150), weight_decay=5e-4),
    options=AkdOptions,
    needs_teacher=True,
    has_labels=True,
    does="PGD-AT on labels mixed with the teacher's answer at x'",
    source="our reading of Maroto et al., arXiv 2203.07159 (labels mixed with teacher outputs); schedule as AdaAD",
)
