"""A small protocol for memory that a GPU and numpy share, and for the stream in which the GPU works on it.

The host and the device share the buffers (page-locked and mapped): on a Jetson they are the same memory, elsewhere the
GPU reads and writes them over the bus, and nothing is copied by hand. What an engine works in is the device's alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

LESS = "end what else uses the GPU's memory; a smaller --batch takes less"
ALIGNMENT = 256
"""Bytes that the memory TensorRT works in is aligned to, as all that CUDA allocates is, and the least of it here."""


@dataclass(frozen=True)
class Buffer:
    """Memory of the device.

    Args:
        address: where the device finds it.
        release: gives it back.
        array: the host's view of it, numpy float32; None where the host has none.

    """

    address: int
    release: Callable[[], object]
    array: Any = None


class Memory(Protocol):
    """What a session needs of CUDA; everything but `active` is called inside of `active`."""

    @property
    def stream(self) -> int:
        """Return the handle of the stream, as TensorRT takes it."""

    def active(self) -> AbstractContextManager[None]:
        """Make the context current in this thread for a block, and what was current before again after it."""

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return new float32 memory of a shape, zeroed, that the host sees too."""

    def reserve(self, size: int) -> Buffer:
        """Return this many bytes of new memory that only the device can access."""

    def free(self, buffer: Buffer) -> None:
        """Give memory back; the buffer's array is not to be touched again."""

    def synchronize(self) -> None:
        """Wait until everything in the stream is done."""

    def close(self) -> None:
        """Give the stream back, after all memory."""


class BufferPool:
    """The memory that the engines of a session share: buffers by the names of tensors, and what an engine works in.

    It is as large as the largest pass so far asked for. Everything here is called inside of `Memory.active`.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._held: dict[str, tuple[int, Buffer]] = {}
        """By name, with its rows or bytes."""

    def rows(self, name: str, n: int, row: tuple[int, ...]) -> Buffer:
        """Return the buffer of a tensor, with n rows at least.

        Raises:
            OutOfMemory: it does not fit; what else is held stays.

        """
        return self._grown(name, n, lambda: self._memory.allocate((n, *row)))

    def working(self, size: int) -> int:
        """Return the address of this many bytes of working memory; raises as `rows`."""
        size = max(size, ALIGNMENT)
        return self._grown("", size, lambda: self._memory.reserve(size)).address

    def clear(self) -> None:
        """Give everything back."""
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
