"""What IAD and AdaIAD share: where the teacher fails at x', the student also follows its own clean answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.methods.losses import kl, probabilities
from pipeline.methods.method import View
from runtime.spec import Fraction, Frozen


class IntrospectionOptions(Frozen):
    """The fields that both methods have.

    `second_phase` is the fraction of the run after which introspection starts (60 of 200 in the published code).
    `b` is the exponent of the trust w = T(x')_y^b.
    """

    second_phase: Fraction = 0.3
    b: Annotated[float, Field(ge=0)] = 0.1


def in_second_phase(options: IntrospectionOptions, progress: float) -> bool:
    """Return whether introspection has started."""
    return progress >= options.second_phase


def introspection(view: View, student: Tensor, teacher: Tensor) -> Tensor:
    """(1 - w) KL(S(x) || S(x')), w = T(x')_y^b without gradient (Zhu et al., ICLR 2022, IAD-I).

    Args:
        view: the batch; the gradient flows through S(x).
        student: the logits S(x').
        teacher: the logits T(x').

    """
    options: IntrospectionOptions = view.options
    of_label = probabilities(teacher.detach()).gather(1, view.labels[:, None]).squeeze(1)
    return (1 - of_label**options.b) * kl(view.student_clean, student)
