"""Functions of tensors, replayed as CUDA graphs where possible. Batches have few sizes, because each needs a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.cuda_graphs import CudaRecorder, Tensors
from runtime.errors import BadModel, first_line
from runtime.terminal.log import log

Function = Callable[..., Tensors]
"""A pure function: equal inputs give equal outputs, nothing is changed, and it never waits for the device."""
Key = tuple[Function, tuple[tuple[torch.Size, torch.dtype], ...]]
"""What a capture is for: a function, and the shapes and types of its inputs."""
Recorder = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], object]]]
"""Takes work without arguments; returns its results, and a function that computes them again in place."""

WARM_UP = 3
"""Runs before a capture, in which libraries choose kernels and allocate workspace; as many as PyTorch uses."""
APART = 1e-3
"""Largest difference of a replay, relative to the largest value: kernels may add in another order."""

ODD = 16
"""In later checks, one in this many images may differ more: rounding may move a point across a kink."""


class Captured:
    """A function over buffers at fixed addresses.

    Inputs are copied in and results are copied out. So a result does not change with the next call, and graphs that
    share memory can be replayed in any order on one stream. The function is recorded on zeros. A correct answer to
    other inputs therefore shows that a replay reads its buffers.

    Args:
        function: the function to capture.
        inputs: tensors with the shapes and types of all later calls.
        record: makes the replay.

    Attributes:
        unheld: whether it was called since its answer was last compared with the function's.

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
        """Return whether the last replay gave the function's answer; True without a replay since the last check."""
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
        recorder: makes the recorder of captures; called again after `clear`.

    """

    def __init__(self, recorder: Callable[[], Recorder]) -> None:
        self._recorder, self._record = recorder, recorder()
        self._asked: set[Key] = set()
        self._captured: dict[Key, Captured] = {}
        self._refused = False

    def ask(self, function: Function, *inputs: Tensor) -> Tensors:
        """Return the answer of `function` to `inputs`.

        Raises:
            RuntimeError: what `function` raises.
            BadModel: see `hold`, which runs a last time before all captures are released.

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
        self._record = self._recorder()  # the shared memory of the graphs was freed with the last of them
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
    """Return whether all rows but one in ODD agree up to rounding. A wrong replay is wrong in all rows."""
    odd = torch.zeros(len(ours[0]), dtype=torch.bool, device=ours[0].device)
    for one, other in zip(ours, theirs, strict=True):
        odd |= ~((one - other).abs().reshape(len(odd), -1).amax(dim=1) <= APART * other.abs().max())
    return int(odd.sum()) <= len(odd) // ODD


def uncaptured(work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], object]]:
    """Record work without a graph: a replay runs it again, into the same buffers. A `Recorder` for any device."""
    results = tuple(result.clone() for result in work())

    def again() -> None:
        for own, new in zip(results, work(), strict=True):
            own.copy_(new)

    return results, again


def cuda_graphs(device: torch.device) -> Recorder:
    """Return the recorder for a CUDA device."""
    recorder = CudaRecorder(device)

    def record(work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], object]]:
        for _ in range(WARM_UP):
            recorder.warm_up(work)
        return recorder.capture(work)

    return record
