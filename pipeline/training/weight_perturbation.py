"""`[train] awp`: adversarial weight perturbation (AWP; Wu et al., NeurIPS 2020, arXiv 2004.05884)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.training.average import Statistics
from runtime.errors import BadRecipe

TINY = 1e-20
"""Keeps the direction of a gradient of zero finite; from the published code."""


class WeightPerturbation:
    """Moves the weights of a student to where the loss is higher, and back.

    Each tensor w of two or more dimensions moves by gamma ||w|| g / ||g||, as in the published code, which also asks
    that its name contains "weight"; g is the gradient of the loss with respect to w. Biases and the parameters of batch
    norms stay, and so do frozen weights and those of a layer that the pass for g skips.

    Args:
        student: the network that learns.
        gamma: the length of the move, relative to that of each tensor.

    Raises:
        BadRecipe: no tensor of two or more dimensions learns.

    """

    def __init__(self, student: nn.Module, gamma: float) -> None:
        self.gamma = gamma
        self._weights: list[Tensor] = [
            weight for weight in student.parameters() if weight.dim() > 1 and weight.requires_grad
        ]
        if not self._weights:
            raise BadRecipe(
                "train.awp: the student has no weight of two or more dimensions that learns", hint="leave awp out"
            )
        self._kept = [torch.empty_like(weight) for weight in self._weights]
        self._statistics = Statistics(student)

    @contextmanager
    def of(self, loss: Callable[[], Tensor]) -> Iterator[None]:
        """Perturb the weights against `loss` inside of the context, and restore them bit for bit after it.

        `loss` returns a scalar by a forward pass through the student. The running statistics that this pass changes are
        restored before the context begins. The stored gradients of the student are not touched.
        """
        self._statistics.take()
        value = loss()
        gradients = (
            torch.autograd.grad(value, self._weights, materialize_grads=True)
            if value.requires_grad  # not if the pass skips all that learns
            else [torch.zeros_like(weight) for weight in self._weights]
        )
        self._statistics.put_back()
        with torch.no_grad():
            torch._foreach_copy_(self._kept, self._weights)
            for weight, gradient in zip(self._weights, gradients, strict=True):
                weight.add_(gradient * (self.gamma * weight.norm() / (gradient.norm() + TINY)))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, self._kept)
