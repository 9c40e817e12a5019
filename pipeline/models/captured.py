"""Functions of tensors, replayed as CUDA graphs where possible. Batches have few sizes, since each needs a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.cuda_graphs import CudaRecorder, Tensors
from runtime.errors import BadModel, first_line
from runtime.terminal.log import log

Function = Callable[..., Tensors]
"""Pure: it answers the same to the same, changes nothing, and never waits for the device."""
Key = tuple[Function, tuple[tuple[torch.Size, torch.dtype], ...]]
"""What a capture is for: a function, and the shapes and types of what it is asked."""
Recorder = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], object]]]
"""Takes work without arguments; returns where its results lie, and what does it again and leaves them there."""

WARM_UP = 3
"""Runs before a capture, in which libraries choose kernels and take their work space; as many as PyTorch's own."""
APART = 1e-3
"""How far a replay may be from the function, as a part of the largest value: kernels may add in another order."""

ODD = 16
"""Of so many images one may be further apart later on: rounding takes a point across a kink, to another slope."""


class Captured:
    """A function over buffers that keep their place.

    Inputs are copied in and results are copied out. An answer therefore does not change when the next one is requested,
    and graphs that share memory can be replayed in any order on one stream. The function is recorded on zeros, so that
    an answer to other inputs shows that a replay reads its buffers.

    Args:
        function: what is asked.
        inputs: tensors of the shapes and types that it is asked with from then on.
        record: makes its replay.

    Attributes:
        unheld: whether it was asked since it was last held to the function.

    """

    def __init__(self, function: Function, inputs: Tensors, record: Recorder) -> None:
        self._inputs = tuple(torch.zeros_like(tensor) for tensor in inputs)
        self._function, self.unheld = function, False
        self._results, self._replay = record(partial(function, *self._inputs))

    def __call__(self, *inputs: Tensor) -> Tensors:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self.unheld = True
        return self._replayed()

    def hold(self) -> bool:
        """Return whether the last replay gave the function's answer; True if nothing was replayed since."""
        if not self.unheld:
            return True
        self.unheld = not mostly_alike(self._replayed(), self._function(*self._inputs))
        return not self.unheld

    def _replayed(self) -> Tensors:
        self._replay()
        return tuple(result.clone() for result in self._results)


class Replays:
    """Calls functions, and captures each one when it is called with the same shapes a second time.

    If the capture fails, or a replay gives another answer than the function, the reason is logged, and functions are
    called directly from then on. Replays since the last check are in doubt until `hold` has compared them.

    Args:
        recorder: makes what captures; anew after `clear`.

    """

    def __init__(self, recorder: Callable[[], Recorder]) -> None:
        self._recorder, self._record = recorder, recorder()
        self._asked: set[Key] = set()
        self._captured: dict[Key, Captured] = {}
        self._refused = False

    def ask(self, function: Function, *inputs: Tensor) -> Tensors:
        """Return what `function` answers to `inputs`.

        Raises:
            RuntimeError: what `function` raises.
            BadModel: see `hold`; where all captures are let go, they are held for the last time.

        """
        key = function, tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if key in self._captured:
            return self._captured[key](*inputs)
        answer = function(*inputs)
        if key in self._asked and not self._refused:
            self._capture(key, inputs, answer)
        self._asked.add(key)
        return answer

    def hold(self) -> None:
        """Compare every capture that was replayed since the last check with its function, on its last inputs.

        Raises:
            BadModel: it gives another answer, or cannot be called.

        """
        try:
            right = all(captured.hold() for captured in self._captured.values())
            reason = "" if right else "it gives other answers than its kernels"
        except RuntimeError as error:  # PyTorch's errors have no type that says more
            reason = f"it cannot be held to its kernels once more, {first_line(error)}"
        if reason:
            raise BadModel(
                f"the answers of a CUDA graph are in doubt: {reason}",
                hint="start again in another --out on the CPU (CUDA_VISIBLE_DEVICES=-1); please report GPU and driver",
            )

    def clear(self) -> None:
        """Release every graph and its memory."""
        self._asked.clear()
        self._captured.clear()
        self._record = self._recorder()  # the memory that graphs shared went with the last of them
        torch.cuda.empty_cache()

    def _capture(self, key: Key, inputs: Tensors, answer: Tensors) -> None:
        try:
            captured = Captured(key[0], inputs, self._record)
            if not alike(captured(*inputs), answer):
                raise RuntimeError("a replay gives other answers")
        except RuntimeError as error:  # PyTorch's errors have no type that says more
            reason = first_line(error)
        else:
            captured.unheld = False
            self._captured[key] = captured
            return
        self._refused = True
        self.hold()
        self.clear()
        log.info(f"no CUDA graph for {len(inputs[0])} images: kernels are launched one by one. {reason}")


def alike(ours: Tensors, theirs: Tensors) -> bool:
    """Return whether the tensors agree up to rounding; NaN agrees with nothing."""
    pairs = zip(ours, theirs, strict=True)
    return all(bool((one - other).abs().max() <= APART * other.abs().max()) for one, other in pairs)


def mostly_alike(ours: Tensors, theirs: Tensors) -> bool:
    """Whether all rows but one in ODD are the other's but for rounding: what was replayed wrong is wrong in all."""
    odd = torch.zeros(len(ours[0]), dtype=torch.bool, device=ours[0].device)
    for one, other in zip(ours, theirs, strict=True):
        odd |= ~((one - other).abs().reshape(len(odd), -1).amax(dim=1) <= APART * other.abs().max())
    return int(odd.sum()) <= len(odd) // ODD


def uncaptured(work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], object]]:
    """Record work as what does it anew, kernel by kernel, into the same buffers: a `Recorder` for any device."""
    results = tuple(result.clone() for result in work())

    def again() -> None:
        for own, new in zip(results, work(), strict=True):
            own.copy_(new)

    return results, again


def cuda_graphs(device: torch.device) -> Recorder:
    """Return what records on a CUDA device."""
    recorder = CudaRecorder(device)

    def record(work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], object]]:
        for _ in range(WARM_UP):
            recorder.warm_up(work)
        return recorder.capture(work)

    return record
