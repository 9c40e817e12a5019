"""Memory that a GPU and numpy see alike, and the stream that work on it runs in, behind a small protocol.

The host and the device share the buffers (page-locked and mapped): on a Jetson they are the same memory, elsewhere the
GPU reads and writes them over the bus, and nothing is copied by hand. What an engine works in is the device's alone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from runtime.errors import EngineFault, MissingEnvironment, OutOfMemory, install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

BUILD_PYCUDA = f"{install('jetson')}, which compiles PyCUDA and needs the CUDA toolkit (nvcc on PATH)"


LESS = "end what else uses the GPU's memory; a smaller --batch takes less"
ALIGNMENT = 256
"""Bytes that the memory TensorRT works in is aligned to, as all that CUDA allocates is, and the least of it here."""


@dataclass(frozen=True)
class Buffer:
    """Memory of the device.

    Args:
        address: where the device finds it.
        owner: what gives it back.
        array: the host's view of it, numpy float32; None where the host has none.

    """

    address: int
    owner: Any
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
        """Return new memory of so many bytes that is the device's alone."""

    def free(self, buffer: Buffer) -> None:
        """Give memory back; the buffer's array is not to be touched again."""

    def synchronize(self) -> None:
        """Wait until everything in the stream is done."""

    def close(self) -> None:
        """Give the stream back, after all memory."""


class PycudaMemory:
    """PyCUDA on the device's primary context, the one that TensorRT and ONNX Runtime use too.

    Raises:
        MissingEnvironment: PyCUDA is not installed, or no device can be used.
        OutOfMemory: the device is full.

    """

    def __init__(self) -> None:
        try:
            import pycuda.autoprimaryctx as primary
            import pycuda.driver as driver
        except ImportError as error:
            raise MissingEnvironment(f"PyCUDA cannot be imported: {error}", hint=BUILD_PYCUDA) from None
        except Exception as error:  # cuInit or the context failed: pycuda._driver.Error or RuntimeError
            if "out of memory" in str(error):
                raise OutOfMemory(f"the GPU has no room for a context: {error}", hint=LESS) from None
            raise MissingEnvironment(f"PyCUDA finds no device: {error}", hint="see `nvidia-smi`") from None
        self._driver = driver
        self._context = primary.context
        with self.active(), self._faults():
            self._stream = driver.Stream()

    @property
    def stream(self) -> int:
        """Return the handle of the stream."""
        return int(self._stream.handle)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Push the primary context for a block; see `Memory`.

        Raises:
            EngineFault: something that ran before has broken it.

        """
        with self._faults():
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return page-locked memory that is mapped into the device's addresses.

        Raises:
            OutOfMemory: there is not so much.
            EngineFault: the device does not take it.

        """
        with self._faults():
            array = self._driver.pagelocked_zeros(shape, np.float32, mem_flags=self._driver.host_alloc_flags.DEVICEMAP)
            try:
                return Buffer(int(array.base.get_device_pointer()), array.base, array)
            except self._driver.Error:
                array.base.free()
                raise

    def reserve(self, size: int) -> Buffer:
        """Return memory of the device; see `Memory`. Raises as `allocate`."""
        with self._faults():
            allocation = self._driver.mem_alloc(size)
            return Buffer(int(allocation), allocation)

    def free(self, buffer: Buffer) -> None:
        """Give memory back; see `Memory`."""
        with self._faults():
            buffer.owner.free()

    def synchronize(self) -> None:
        """Wait until everything in the stream is done.

        Raises:
            EngineFault: what ran in it failed.

        """
        with self._faults():
            self._stream.synchronize()

    def close(self) -> None:
        """Give the stream back."""
        self._stream = None

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except self._driver.MemoryError as error:
            raise OutOfMemory(f"CUDA: {error}", hint=LESS) from None
        except self._driver.Error as error:
            raise EngineFault(f"CUDA: {error}", hint="see `nvidia-smi`") from None


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
        """Return the address of so many bytes to work in; raises as `rows`."""
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
