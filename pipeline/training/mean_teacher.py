"""A mean teacher (Tarvainen and Valpola, NeurIPS 2017): a network whose weights are an average of the student's."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MeanTeacher:
    """A copy of the student in eval mode that follows it: w <- decay w + (1 - decay) w_student.

    Running statistics are averaged like weights. Nothing waits for the device, and all tensors are changed in place.

    Args:
        student: the student on its device; the average starts from its current weights.
        decay: the share of its old value that the average keeps in each step.

    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self.decay = decay
        self._kept, self._now = _numbers(self.network), _numbers(student)

    @torch.no_grad()
    def follow(self) -> None:
        """Take one step towards the student."""
        torch._foreach_lerp_(self._kept, self._now, 1 - self.decay)


def _numbers(network: nn.Module) -> list[Tensor]:
    """Return weights and running statistics, without the batch counters, which are not used in eval mode."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
