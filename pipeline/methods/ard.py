"""ARD (Goldblum et al. 2020, arXiv 1905.09747): at the attacked point, answer as the teacher does at x."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.methods.losses import kl
from pipeline.methods.method import Method, Published, Schedule, View
from pipeline.methods.pgd_at import classification_error
from runtime.spec import Frozen


class ArdOptions(Frozen):
    """The fields of `[method.ard]`: temperature t divides the logits of both networks."""

    temperature: Annotated[float, Field(gt=0)] = 30.0


def _loss(view: View, points: Tensor) -> Tensor:
    """t^2 KL(T_t(x) || S_t(x'))."""
    options: ArdOptions = view.options
    t = options.temperature
    return t**2 * kl(view.teacher_clean, view.student(points), t)


ARD = Method(
    objective=classification_error,
    loss=_loss,
    start="uniform",
    search_mode="train",
    reduction="mean",
    schedule=Schedule(epochs=200, milestones=(100, 150), weight_decay=2e-4),
    options=ArdOptions,
    needs_teacher=True,
    has_labels=False,
    does="the student learns to answer at the attacked point x' as the teacher does at x",
    source="Goldblum et al., AAAI 2020, at alpha = 1; as in the published code, but with its second learning-rate drop",
    published=Published(),
)
