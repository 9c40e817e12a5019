"""Work on tensors of fixed shapes as a CUDA graph: its thousands of kernels are launched at once, not one by one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Protocol

import torch

from pipeline.cuda_graphs import CudaRecorder, Tensors
from pipeline.memory import ran_out
from runtime.errors import first_line
from runtime.terminal.log import log

MOST = 8
"""Captures of one work, each of other shapes or of another phase, before it runs as it is for good."""


class Recorder(Protocol):
    """What captures the kernels that a function launches."""

    def warm_up(self, work: Callable[[], Tensors]) -> Tensors:
        """Run the work once as it is, so that libraries settle what they settle at a first call."""

    def capture(self, work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record the work without running it.

        Returns:
            Its outputs, and the function that computes them anew in place.

        Raises:
            RuntimeError: it cannot be captured.

        """


def recorder_of(device: torch.device) -> Recorder | None:
    """Return what captures work on a device; None on the CPU, where no launch is to be saved."""
    return CudaRecorder(device) if device.type == "cuda" else None


class Replayed:
    """Work that is captured at its second call, and replayed from then on.

    The work is a function of tensors. Beside them it may read what is changed in place, as weights are, and must read
    no value from the device. It sees buffers of its own, which the arguments are copied into, and its outputs are
    overwritten by the next call. With arguments of other shapes, or in another phase, it begins anew.

    The first call of a kind runs as it is: it is the warm-up that a capture needs. Where a capture fails, the work runs
    as it is for good, and the log says why.

    Args:
        name: what the log calls the work.
        recorder: what captures it; None runs it as it is.
        tell: says why it is not captured.

    """

    def __init__(self, name: str, recorder: Recorder | None, tell: Callable[[str], None] = log.info) -> None:
        self.name, self.recorder, self._tell = name, recorder, tell
        self._begun = 0
        self.release()

    def release(self) -> None:
        """Let go of the graph and its memory; the next call begins anew."""
        self._kind: Hashable = None
        self._replay: Callable[[], None] | None = None
        self._buffers: Tensors = ()
        self._outputs: Tensors = ()

    def give_up(self, reason: str) -> None:
        """Run the work as it is from here on, and say why."""
        if self.recorder is not None:
            self._tell(f"{self.name} runs without a CUDA graph: {reason}")
        self.recorder = None
        self.release()

    def __call__(self, work: Callable[..., Tensors], inputs: Tensors, phase: Hashable = None) -> Tensors:
        """Return what the work makes of the inputs in a phase; it may differ from call to call by the phase alone."""
        kind = phase, tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs)
        if self.recorder is not None and kind != self._kind:
            return self._first(self.recorder, work, inputs, kind)
        if self.recorder is not None and self._replay is None:
            self._capture(self.recorder, partial(work, *self._buffers))
        if self._replay is None:
            return work(*inputs)
        _fill(self._buffers, inputs)
        self._replay()
        return self._outputs

    def _first(self, recorder: Recorder, work: Callable[..., Tensors], inputs: Tensors, kind: Hashable) -> Tensors:
        """Begin anew, with other buffers."""
        self.release()
        if self._begun == MOST:
            self.give_up(f"after {MOST} captures its shapes change again")
            return work(*inputs)
        self._begun += 1
        buffers = tuple(torch.empty_like(tensor) for tensor in inputs)
        _fill(buffers, inputs)
        outputs = recorder.warm_up(partial(work, *buffers))
        self._kind, self._buffers = kind, buffers
        return outputs

    def _capture(self, recorder: Recorder, work: Callable[[], Tensors]) -> None:
        try:
            self._outputs, self._replay = recorder.capture(work)
        except RuntimeError as error:
            self.give_up("memory is short" if ran_out(error) else first_line(error))


def _fill(buffers: Tensors, values: Tensors) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
