"""AdaAD (Huang et al., CVPR 2023): find the point where student and teacher disagree most, and align them there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from pipeline.methods.losses import kl
from pipeline.methods.method import Method, Published, Schedule, View
from runtime.spec import Frozen


class AdaAdOptions(Frozen):
    """The fields of `[method.adaad]`.

    `alpha` is the weight of the searched point against the clean point. `direction` 'teacher_student' is KL(T || S), as
    in the published code; 'student_teacher' is KL(S || T), as in the published slides. `clean_statistics` also forwards
    the clean images through the student in training mode where alpha is 1, as the published code does. This updates the
    batch-norm statistics and nothing else.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    direction: Literal["teacher_student", "student_teacher"] = "teacher_student"
    clean_statistics: bool = False


def _disagreement(view: View, points: Tensor) -> Tensor:
    """KL(T(x') || S(x')); its gradient in x' flows through both networks."""
    return _directed(view.options, view.teacher(points), view.student(points))


def _loss(view: View, points: Tensor) -> Tensor:
    """Alpha KL(T(x') || S(x')) + (1 - alpha) KL(T(x) || S(x))."""
    options: AdaAdOptions = view.options
    aligned = _disagreement(view, points)
    if options.alpha == 1.0:
        if options.clean_statistics:
            _ = view.student_clean
        return aligned
    clean = _directed(options, view.teacher_clean, view.student_clean)
    return options.alpha * aligned + (1 - options.alpha) * clean


def _directed(options: AdaAdOptions, teacher: Tensor, student: Tensor) -> Tensor:
    return kl(teacher, student) if options.direction == "teacher_student" else kl(student, teacher)


ADAAD = Method(
    objective=_disagreement,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="mean",
    schedule=Schedule(epochs=200, milestones=(100, 150), weight_decay=5e-4),
    options=AdaAdOptions,
    needs_teacher=True,
    has_labels=False,
    does="searches the point where student and teacher disagree most, and aligns them there",
    source="Huang et al., CVPR 2023; direction and start as in the published code",
    published=Published(clean_first=True),
)
