"""RSLAD (Zi et al. 2021, arXiv 2108.07969): the teacher's clean answer replaces the label in search and loss."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from torch import Tensor

from pipeline.methods.losses import kl
from pipeline.methods.method import Method, Published, Schedule, View
from runtime.spec import Frozen, parse_fraction

Weight = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0)]


class RsladOptions(Frozen):
    """The fields of `[method.rslad]`: the weights of the searched and of the clean point, such as "5/6".

    The published code uses ten times both on CIFAR-100.
    """

    searched: Weight = 5 / 6
    clean: Weight = 1 / 6


def _disagreement(view: View, points: Tensor) -> Tensor:
    """KL(T(x) || S(x')); T(x) is a constant."""
    return kl(view.teacher_clean, view.student(points))


def _loss(view: View, points: Tensor) -> Tensor:
    """5/6 KL(T(x) || S(x')) + 1/6 KL(T(x) || S(x))."""
    options: RsladOptions = view.options
    return options.searched * _disagreement(view, points) + options.clean * kl(view.teacher_clean, view.student_clean)


RSLAD = Method(
    objective=_disagreement,
    loss=_loss,
    start="gaussian",
    search_mode="eval",
    reduction="mean",
    schedule=Schedule(epochs=300, milestones=(215, 260, 285), weight_decay=2e-4),
    options=RsladOptions,
    needs_teacher=True,
    has_labels=False,
    does="the teacher's clean answer replaces the label, in search and loss",
    source="Zi et al., ICCV 2021, eq. 5; weights, reduction and schedule as in the published code",
    published=Published(),
)
