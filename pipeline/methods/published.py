"""`[method] start`: where the search starts, and what moves the running statistics beside it (ADR 47)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pipeline.methods.method import Method, Published, View

Start = Literal["clamped", "published"]
"""'clamped': the search starts in the ball and in [0, 1], and learning forwards what the loss uses.

'published': both as in the method's published code.
"""


def started(method: Method, start: Start) -> Method:
    """Return a method as it is to be run; one without a published code cannot be `published`."""
    if start == "clamped":
        return method
    assert method.published is not None
    return replace(method, clamped=method.published.clamped, loss=partial(_loss, method, method.published))


def _loss(method: Method, published: Published, view: View, points: Tensor) -> Tensor:
    """Return the method's loss; forward the clean images before and after it as its published code does."""
    if published.clean_first:
        _ = view.student_clean
    values = method.loss(view, points)
    seen = "student_clean" in view.__dict__
    more = published.second_phase if method.phase(view.options, view.progress) else 0
    with torch.no_grad():
        for _ in range(published.clean + more - seen):
            view.student(view.images)
    return values
