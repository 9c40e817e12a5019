"""`[method] start`: where the search starts, and what updates the running statistics (ADR 50)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pipeline.methods.method import Method, Published, View

Start = Literal["clamped", "published"]
"""'clamped': the search starts within the ball and [0, 1], and training forwards only what the loss uses.

'published': both follow the method's published code.
"""


def started(method: Method, start: Start) -> Method:
    """Return a method with the given start; 'published' needs a published code."""
    if start == "clamped":
        return method
    assert method.published is not None
    return replace(method, clamped=method.published.clamped, loss=partial(_loss, method, method.published))


def _loss(method: Method, published: Published, view: View, points: Tensor) -> Tensor:
    """Return the method's loss. Forward the clean images before and after it, as the published code does."""
    if published.clean_first:
        _ = view.student_clean
    values = method.loss(view, points)
    seen = "student_clean" in view.__dict__
    more = published.second_phase if method.phase(view.options, view.progress) else 0
    with torch.no_grad():
        for _ in range(published.clean + more - seen):
            view.student(view.images)
    return values
