"""A small protocol for memory that a GPU and numpy share, and for the stream in which the GPU works on it.

Host and device share the buffers, which are page-locked and mapped. On a Jetson they are the same memory; elsewhere the
GPU reads and writes them over the bus. Nothing is copied explicitly. An engine's working memory is only on the device.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

LESS = "stop other programs that use the GPU's memory, or choose a smaller --batch"
ALIGNMENT = 256
"""The alignment in bytes of TensorRT's working memory, which CUDA's allocations have, and the least size of it."""


@dataclass(frozen=True)
class Buffer:
    """Memory of the device.

    Args:
        address: its address on the device.
        release: frees it.
        array: the host's view of it, numpy float32; None if the host cannot access it.

    """

    address: int
    release: Callable[[], object]
    array: Any = None


class Memory(Protocol):
    """The functions of CUDA that a session needs. All except `active` are called inside `active`."""

    @property
    def stream(self) -> int:
        """Return the handle of the stream, for TensorRT."""

    def active(self) -> AbstractContextManager[None]:
        """Make the context current in this thread during a block, and then restore the previous one."""

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return new float32 memory of a shape, zeroed, which the host can also access."""

    def reserve(self, size: int) -> Buffer:
        """Return this many bytes of new memory that only the device can access."""

    def free(self, buffer: Buffer) -> None:
        """Free memory. The buffer's array must not be used again."""

    def synchronize(self) -> None:
        """Wait until everything in the stream is done."""

    def close(self) -> None:
        """Destroy the stream, after all memory was freed."""


class BufferPool:
    """The memory that the engines of a session share: buffers by names of tensors, and working memory.

    It has the size of the largest pass so far. All methods are called inside `Memory.active`.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._held: dict[str, tuple[int, Buffer]] = {}
        """The buffers by name, each with its number of rows or bytes."""

    def rows(self, name: str, n: int, row: tuple[int, ...]) -> Buffer:
        """Return the buffer of a tensor, with at least n rows.

        Raises:
            OutOfMemory: the buffer does not fit; the others stay.

        """
        return self._grown(name, n, lambda: self._memory.allocate((n, *row)))

    def working(self, size: int) -> int:
        """Return the address of at least `size` bytes of working memory; raises as `rows` does."""
        size = max(size, ALIGNMENT)
        return self._grown("", size, lambda: self._memory.reserve(size)).address

    def clear(self) -> None:
        """Free all memory."""
        with ExitStack() as everything:
            while self._held:
                everything.callback(self._memory.free, self._held.popitem()[1][1])

    def _grown(self, name: str, size: int, new: Callable[[], Buffer]) -> Buffer:
        held, buffer = self._held.get(name, (0, None))
        if buffer is None or held < size:
            if buffer is not None:
                del self._held[name]
                self._memory.free(buffer)
            buffer = new()
            self._held[name] = size, buffer
        return buffer
