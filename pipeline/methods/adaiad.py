"""AdaIAD (Huang et al., CVPR 2023): AdaAD's search and alignment, with IAD's introspection from the second phase on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.methods.introspection import IntrospectionOptions, in_second_phase, introspection
from pipeline.methods.losses import kl
from pipeline.methods.method import Method, Published, Schedule, View


class AdaIadOptions(IntrospectionOptions):
    """The fields of `[method.adaiad]`: second_phase, b, and the temperature t of the alignment, not of the search.

    The published command leaves t at 30.
    """

    temperature: Annotated[float, Field(gt=0)] = 30.0


def _disagreement(view: View, points: Tensor) -> Tensor:
    """KL(T(x') || S(x')); its gradient in x' flows through both networks."""
    return kl(view.teacher(points), view.student(points))


def _loss(view: View, points: Tensor) -> Tensor:
    """t^2 KL(T_t(x') || S_t(x')), and from the second phase on + (1 - w) KL(S(x) || S(x'))."""
    options: AdaIadOptions = view.options
    t = options.temperature
    teacher, student = view.teacher(points).detach(), view.student(points)
    aligned = t**2 * kl(teacher, student, t)
    return aligned + introspection(view, student, teacher) if in_second_phase(view.options, view.progress) else aligned


ADAIAD = Method(
    objective=_disagreement,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="batchmean",
    schedule=Schedule(epochs=200, milestones=(100, 150), weight_decay=5e-4),
    options=AdaIadOptions,
    needs_teacher=True,
    has_labels=False,
    does="AdaAD; from 30 % of the run on, the student trusts the teacher only as far as it answers well at x'",
    source="Huang et al., CVPR 2023; direction, temperature and second phase as in the published code",
    published=Published(clean_first=True, clean=2, second_phase=1),
    phase=in_second_phase,
)
