"""A recorder for the CPU that does what a CUDA graph does: it keeps the operators, and replays them on the same memory.

Nothing of Python runs again at a replay. So what a step reads of Python's world, as a number that has changed since the
capture, shows as a difference from the step that is not captured; and so does memory that was replaced.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
WAITS = (
    ATEN._local_scalar_dense.default,
    ATEN.is_nonzero.default,
    ATEN.equal.default,
    ATEN.nonzero.default,
    ATEN.lift_fresh.default,
)
"""Operators that give a value to Python, or take one from it into a tensor: on CUDA the host waits for the device."""


class Watching(TorchDispatchMode):
    """Keeps every operator that runs, with its arguments and outputs; may refuse what CUDA refuses in a capture."""

    def __init__(self, *, refusing=True):
        super().__init__()
        self.refusing = refusing
        self.calls, self._made, self._before = [], set(), {}

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        options = options or {}
        if self.refusing and operator in WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {operator}")
        self._keep(tensors((arguments, options)))
        outputs = operator(*arguments, **options)
        self._made |= {storage(tensor) for tensor in tensors(outputs)}
        self.calls.append((operator, arguments, options, outputs))
        return outputs

    def _keep(self, seen):
        """Keep what was there before, as it was: a capture runs nothing, so nothing may have moved after it."""
        for tensor in seen:
            place = tensor.data_ptr(), tensor.shape, tensor.stride()
            if storage(tensor) not in self._made and place not in self._before:
                self._before[place] = tensor, tensor.detach().clone()

    def put_back(self):
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.copy_(before)


class Recorded:
    """Keeps what it was asked for, in order: `asked`."""

    def __init__(self):
        self.asked = []

    def warm_up(self, work):
        self.asked.append("warm up")
        with Watching(refusing=False):
            return work()

    def capture(self, work):
        self.asked.append("capture")
        with Watching() as watched:
            outputs = work()
        watched.put_back()

        @torch.no_grad()
        def replay():
            self.asked.append("replay")
            for operator, arguments, options, made in watched.calls:
                again = operator(*arguments, **options)
                for old, new in zip(tensors(made), tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return outputs, replay


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storage(tensor):
    return tensor.untyped_storage().data_ptr()
