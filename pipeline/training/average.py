"""Copies of the student's state: an average of the weights, and earlier running statistics."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(student: nn.Module) -> AveragedModel:
    """Return a copy of the student, which `follow` updates."""
    return AveragedModel(student)


@torch.no_grad()
def follow(average: AveragedModel, student: nn.Module, decay: float) -> None:
    """Update the average: w <- decay w + (1 - decay) w_student.

    The first update copies the weights. Running statistics are not averaged but copied, until `update_bn` recomputes
    them (Izmailov et al., UAI 2018). `AveragedModel.update_parameters` does the same, but waits for the device.
    """
    kept: list[Tensor] = list(average.module.parameters())
    now: list[Tensor] = list(student.parameters())
    if average.n_averaged == 0:  # counted on the CPU
        torch._foreach_copy_(kept, now)
    else:
        torch._foreach_lerp_(kept, now, 1 - decay)
    for own, its in zip(average.module.buffers(), student.buffers(), strict=True):
        own.copy_(its)
    average.n_averaged += 1


class Statistics:
    """A snapshot of the running statistics of a network, in its own memory."""

    def __init__(self, network: nn.Module) -> None:
        alike: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for buffer in network.buffers():
            alike[buffer.dtype].append(buffer)
        self._pairs = [(buffers, [buffer.clone() for buffer in buffers]) for buffers in alike.values()]

    def take(self) -> None:
        """Take a snapshot."""
        for present, kept in self._pairs:
            torch._foreach_copy_(kept, present)

    def put_back(self) -> None:
        """Restore the snapshot."""
        for present, kept in self._pairs:
            torch._foreach_copy_(present, kept)
