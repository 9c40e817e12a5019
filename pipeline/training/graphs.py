"""Captures work on tensors of fixed shapes as a CUDA graph, so that its thousands of kernels are launched together."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Hashable
from functools import partial
from typing import Protocol

import numpy as np
import torch

from pipeline.cuda_graphs import CudaRecorder, Tensors
from pipeline.memory import ran_out
from runtime.errors import first_line
from runtime.terminal.log import log

MOST = 8
"""The most captures of one work, each for other shapes or another phase; after that it always runs eagerly."""


class Recorder(Protocol):
    """Captures the kernels that a function launches."""

    def warm_up(self, work: Callable[[], Tensors]) -> Tensors:
        """Run the work once eagerly, so that libraries do what they do only at a first call."""

    def capture(self, work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record the work without running it.

        Returns:
            Its outputs, and a function that computes them again in place.

        Raises:
            RuntimeError: it cannot be captured.

        """


def recorder_of(device: torch.device) -> Recorder | None:
    """Return the recorder for a device; None on the CPU, where launches cost nothing."""
    return CudaRecorder(device) if device.type == "cuda" else None


class Replayed:
    """Work that is captured at its second call, and replayed from then on.

    The work is a function of tensors. It may also read tensors that are changed in place, such as weights, but it must
    not read any value from the device to the CPU. The arguments are copied into buffers that the work reads, and each
    call overwrites the outputs of the one before. Arguments of other shapes, or another phase, start a new capture.

    The first call runs eagerly: this is the warm-up that a capture needs. If a capture fails, or the work gives up, the
    work always runs eagerly from then on, and the log says why. So does work that draws random numbers on the CPU, such
    as a student that skips layers at random: each replay would repeat the numbers of the capture.

    Args:
        name: the name of the work in the log.
        recorder: captures the work; None runs it eagerly.
        tell: logs the reason why the work is not captured.

    """

    def __init__(self, name: str, recorder: Recorder | None, tell: Callable[[str], None] = log.info) -> None:
        self.name, self.recorder, self._tell = name, recorder, tell
        self._begun = 0
        self.release()

    def release(self) -> None:
        """Release the graph and its memory; the next call starts a new capture."""
        self._kind: Hashable = None
        self._replay: Callable[[], None] | None = None
        self._buffers: Tensors = ()
        self._outputs: Tensors = ()

    def give_up(self, reason: str) -> None:
        """Run the work eagerly from now on, and log the reason."""
        if self.recorder is not None:
            self._tell(f"{self.name} runs without a CUDA graph: {reason}")
        self.recorder = None
        self.release()

    def __call__(self, work: Callable[..., Tensors], inputs: Tensors, phase: Hashable = None) -> Tensors:
        """Return the outputs of the work for these inputs. Between calls, the work may differ only by its phase."""
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
        """Run the first call of a new capture, with new buffers."""
        self.release()
        if self._begun == MOST:
            self.give_up(f"after {MOST} captures its shapes change again")
            return work(*inputs)
        self._begun += 1
        buffers = tuple(torch.empty_like(tensor) for tensor in inputs)
        _fill(buffers, inputs)
        before = _random_state()
        outputs = recorder.warm_up(partial(work, *buffers))
        if _random_state() != before:
            self.give_up("it draws random numbers on the CPU")
        if self.recorder is not None:
            self._kind, self._buffers = kind, buffers
        return outputs

    def _capture(self, recorder: Recorder, work: Callable[[], Tensors]) -> None:
        try:
            self._outputs, self._replay = recorder.capture(work)
        except RuntimeError as error:
            self.give_up("memory is short" if ran_out(error) else first_line(error))
        if self.recorder is None:
            self.release()


def _fill(buffers: Tensors, values: Tensors) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def _random_state() -> bytes:
    """Return the state of the CPU's random generators: those of Python, NumPy and PyTorch."""
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))
