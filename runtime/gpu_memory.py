"""Memory that a GPU and numpy see alike, and the stream that work on it runs in, behind a small protocol.

The host and the device share the buffers (page-locked and mapped): on a Jetson they are the same memory, elsewhere the
GPU reads and writes them over the bus, and nothing is copied by hand.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from runtime.errors import EngineFault, MissingEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

BUILD_PYCUDA = "pip install 'edgeproof[jetson]', which compiles PyCUDA and needs the CUDA toolkit (nvcc on PATH)"


@dataclass(frozen=True)
class Buffer:
    """Float32 memory of one shape.

    Args:
        array: the host's view of it, numpy.
        address: where the device finds it.

    """

    array: Any
    address: int


class Memory(Protocol):
    """What a session needs of CUDA; everything but `active` is called inside of `active`."""

    @property
    def stream(self) -> int:
        """Return the handle of the stream, as TensorRT takes it."""

    def active(self) -> AbstractContextManager[None]:
        """Make the context current in this thread for a block, and what was current before again after it."""

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return new float32 memory, zeroed."""

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

    """

    def __init__(self) -> None:
        try:
            import pycuda.autoprimaryctx as primary
            import pycuda.driver as driver
        except ImportError as error:
            raise MissingEnvironment(f"PyCUDA cannot be imported: {error}", hint=BUILD_PYCUDA) from None
        except Exception as error:  # cuInit or the context failed: pycuda._driver.Error or RuntimeError
            raise MissingEnvironment(f"PyCUDA finds no device: {error}", hint="see `nvidia-smi`") from None
        self._driver = driver
        self._context = primary.context
        with self.active(), self._faults():
            self._stream = driver.Stream()

    @property
    def stream(self) -> int:
        """Return the handle of the stream."""
        return int(self._stream.handle)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Push the primary context for a block; see `Memory`."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return page-locked memory that is mapped into the device's addresses.

        Raises:
            EngineFault: there is not so much.

        """
        with self._faults():
            array = self._driver.pagelocked_zeros(shape, np.float32, mem_flags=self._driver.host_alloc_flags.DEVICEMAP)
            return Buffer(array, int(array.base.get_device_pointer()))

    def free(self, buffer: Buffer) -> None:
        """Give memory back; see `Memory`."""
        buffer.array.base.free()

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

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise EngineFault(f"CUDA: {error}", hint="a smaller --batch takes less memory; see `nvidia-smi`") from None
