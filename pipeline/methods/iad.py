"""IAD (Zhu et al. 2022, arXiv 2106.04928): ARD at temperature 1, with introspection from the second phase on."""

from __future__ import annotations

from torch import Tensor

from pipeline.methods.introspection import IntrospectionOptions, in_second_phase, introspection
from pipeline.methods.losses import kl
from pipeline.methods.method import Method, Published, Schedule, View
from pipeline.methods.pgd_at import classification_error


class IadOptions(IntrospectionOptions):
    """The fields of `[method.iad]`: second_phase and b."""


def _loss(view: View, points: Tensor) -> Tensor:
    """KL(T(x) || S(x')), and from the second phase on + (1 - w) KL(S(x) || S(x'))."""
    student = view.student(points)
    aligned = kl(view.teacher_clean, student)
    return (
        aligned + introspection(view, student, view.teacher(points))
        if in_second_phase(view.options, view.progress)
        else aligned
    )


IAD = Method(
    objective=classification_error,
    loss=_loss,
    start="uniform",
    search_mode="train",
    reduction="batchmean",
    schedule=Schedule(epochs=200, milestones=(100, 150), weight_decay=2e-4),
    options=IadOptions,
    needs_teacher=True,
    has_labels=False,
    does="ARD; from 30 % of the run on, the student trusts the teacher only as far as it answers well at x'",
    source="Zhu et al., ICLR 2022, IAD-I; as in the published code, but with its second learning-rate drop",
    published=Published(second_phase=1),
    phase=in_second_phase,
)
