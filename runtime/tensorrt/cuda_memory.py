"""Implements the Memory protocol on the CUDA driver, with cuda-bindings (a wheel) or PyCUDA (compiled)."""

from __future__ import annotations

import ctypes
import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import EdgeproofError, EngineFault, MissingEnvironment, OutOfMemory, first_line, install
from runtime.tensorrt.memory import LESS, Buffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.tensorrt.memory import Memory

SEE = "see `nvidia-smi`"
UPDATE = "update NVIDIA's driver, or JetPack"
FLOAT = np.dtype(np.float32).itemsize


def open_memory() -> Memory:
    """Return the memory of the first device, through cuda-bindings or PyCUDA.

    Raises:
        MissingEnvironment: neither cuda-bindings nor PyCUDA is installed, or no device can be used.
        OutOfMemory: the device is full.

    """
    try:
        return BindingsMemory()
    except ImportError as error:
        first = error
    try:
        return PycudaMemory()
    except ImportError as second:
        raise MissingEnvironment(
            f"cuda-bindings cannot be imported: {first}; nor can PyCUDA: {second}", hint=install("cuda")
        ) from None


class BindingsMemory:
    """cuda-bindings on the device's primary context, which TensorRT and ONNX Runtime also use.

    The context is kept until the process ends, because other code may use it.

    Raises:
        ImportError: cuda-bindings is not installed.
        MissingEnvironment: no device can be used, or the driver is too old.
        OutOfMemory: the device is full.

    """

    def __init__(self) -> None:
        from cuda.bindings import driver

        self._driver = driver
        try:
            self._call("cuInit", 0)
            self._context = self._call("cuDevicePrimaryCtxRetain", self._call("cuDeviceGet", 0))
        except OutOfMemory as error:
            raise _no_room(error.message) from None
        except EngineFault as error:
            raise MissingEnvironment(f"cuda-bindings finds no device: {error.message}", hint=SEE) from None
        with self.active():
            self._stream = self._call("cuStreamCreate", 0)

    @property
    def stream(self) -> int:
        """Return the handle of the stream."""
        return int(self._stream)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Push the primary context for a block; see `Memory`.

        Raises:
            EngineFault: earlier work has broken the context.

        """
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return page-locked memory that is mapped into the device's addresses.

        Raises:
            OutOfMemory: the memory is too small.
            EngineFault: the device cannot map the memory.

        """
        n = math.prod(shape)
        host = self._call("cuMemHostAlloc", n * FLOAT, self._driver.CU_MEMHOSTALLOC_DEVICEMAP)
        release = partial(self._call, "cuMemFreeHost", host)
        try:
            address = int(self._call("cuMemHostGetDevicePointer", host, 0))
        except EdgeproofError:
            release()
            raise
        array = np.ctypeslib.as_array((ctypes.c_float * n).from_address(host)).reshape(shape)
        array.fill(0)
        return Buffer(address, release, array)

    def reserve(self, size: int) -> Buffer:
        """Return memory of the device; see `Memory`. Raises as `allocate` does."""
        memory = self._call("cuMemAlloc", size)
        return Buffer(int(memory), partial(self._call, "cuMemFree", memory))

    def free(self, buffer: Buffer) -> None:
        """Free memory; see `Memory`."""
        buffer.release()

    def synchronize(self) -> None:
        """Wait until everything in the stream is done.

        Raises:
            EngineFault: work in the stream failed.

        """
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Destroy the stream. An error is ignored, because the call before has reported it."""
        self._driver.cuStreamDestroy(self._stream)

    def _call(self, function: str, *given: Any) -> Any:
        """Call the driver; return its answer, or None if it returns only a code."""
        try:
            code, *answer = getattr(self._driver, function)(*given)
        except RuntimeError as error:  # the driver's library is missing, or lacks this function
            said = f"cuda-bindings cannot use the CUDA driver: {first_line(error)}"
            raise MissingEnvironment(said, hint=UPDATE) from None
        except (KeyError, ValueError) as error:  # a code that is newer than these bindings
            raise EngineFault(f"CUDA: {function} failed: {first_line(error)}", hint=SEE) from None
        if code == self._driver.CUresult.CUDA_SUCCESS:
            return answer[0] if answer else None
        text = self._driver.cuGetErrorString(code)[1] or b"unknown error"
        said = f"CUDA: {function} failed: {text.decode(errors='replace')}"
        if code == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemory(said, hint=LESS)
        raise EngineFault(said, hint=SEE)


class PycudaMemory:
    """PyCUDA on the device's primary context, like `BindingsMemory`.

    Raises:
        ImportError: PyCUDA is not installed, or does not fit the driver.
        MissingEnvironment: no device can be used.
        OutOfMemory: the device is full.

    """

    def __init__(self) -> None:
        try:
            import pycuda.autoprimaryctx as primary
            import pycuda.driver as driver
        except ImportError:
            raise
        except Exception as error:  # cuInit or the context failed: pycuda._driver.Error or RuntimeError
            if "out of memory" in str(error):
                raise _no_room(str(error)) from None
            raise MissingEnvironment(f"PyCUDA finds no device: {error}", hint=SEE) from None
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
        """Push the primary context for a block; see `BindingsMemory`."""
        with self._faults():
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, shape: tuple[int, ...]) -> Buffer:
        """Return page-locked memory that is mapped into the device's addresses; see `BindingsMemory`."""
        with self._faults():
            array = self._driver.pagelocked_zeros(shape, np.float32, mem_flags=self._driver.host_alloc_flags.DEVICEMAP)
            try:
                return Buffer(int(array.base.get_device_pointer()), array.base.free, array)
            except self._driver.Error:
                array.base.free()
                raise

    def reserve(self, size: int) -> Buffer:
        """Return memory of the device; see `Memory`."""
        with self._faults():
            allocation = self._driver.mem_alloc(size)
            return Buffer(int(allocation), allocation.free)

    def free(self, buffer: Buffer) -> None:
        """Free memory; see `Memory`."""
        with self._faults():
            buffer.release()

    def synchronize(self) -> None:
        """Wait until everything in the stream is done; see `BindingsMemory`."""
        with self._faults():
            self._stream.synchronize()

    def close(self) -> None:
        """Destroy the stream."""
        self._stream = None

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except self._driver.MemoryError as error:
            raise OutOfMemory(f"CUDA: {error}", hint=LESS) from None
        except self._driver.Error as error:
            raise EngineFault(f"CUDA: {error}", hint=SEE) from None


def _no_room(said: str) -> OutOfMemory:
    return OutOfMemory(f"the GPU has no room for a context: {said}", hint=LESS)
