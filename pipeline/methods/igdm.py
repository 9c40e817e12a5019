"""`[method] igdm`: IGDM (Lee et al., ICLR 2025, arXiv 2312.03286) beside the loss of a method that has a teacher."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pipeline.methods.losses import kl
from pipeline.methods.method import Method, Objective, View


def with_igdm(method: Method, alpha: float | None) -> Method:
    """Return a method that also matches its teacher's input gradient, with the weight `alpha`; None adds nothing."""
    if alpha is None:
        return method
    assert method.needs_teacher
    return replace(method, loss=partial(_loss, method.loss, alpha))


def _loss(loss: Objective, alpha: float, view: View, points: Tensor) -> Tensor:
    """Add alpha e KL(softmax(T(x + d) - T(x - d)) || softmax(S(x + d) - S(x - d))), d = x' - x; logits in T and S.

    e is the fraction of the run's steps that is done. The reviews of the paper call the term its equation 8 and the sum
    equation 9; we had no access to the equations themselves. The term is that of the published codes with beta = gamma
    = 1: x - d may leave [0, 1], the teacher has no gradient, the student is in train mode. docs/recipes/methods.md says
    which codes these are, and how a step of theirs differs.
    """
    view = view.once_at(points)
    opposite = 2 * view.images - points
    student = view.student(opposite)
    with torch.no_grad():
        teacher = view.teacher(opposite)
    values = loss(view, points)
    match = kl(view.teacher(points).detach() - teacher, view.student(points) - student)
    return values + alpha * view.elapsed * match
