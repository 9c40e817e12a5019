"""CUDA graphs: the kernels of a piece of work, captured once and then launched together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Work = Callable[[], Tensors]


class CudaRecorder:
    """Captures work on one device. Its graphs share memory, as long as one of them exists.

    A capture is `thread_local`, so that other threads (NCCL's, or those that load images) may continue meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> Tensors:
        """Run the work on the stream of the capture, so that libraries do now what they do only at a first call."""
        with torch.cuda.device(self._device):
            here, aside = torch.cuda.current_stream(), _aside(self._device)
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                outputs = work()
            here.wait_stream(aside)
        return outputs

    def capture(self, work: Work) -> tuple[Tensors, Callable[[], None]]:
        """Record the work as one graph without running it.

        Returns:
            Its outputs, and a function that computes them again in place.

        Raises:
            RuntimeError: it cannot be captured.

        """
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=_aside(self._device), capture_error_mode="thread_local"),
        ):
            outputs = work()
        return outputs, graph.replay


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for captures: one per device, because cuBLAS keeps a workspace for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
