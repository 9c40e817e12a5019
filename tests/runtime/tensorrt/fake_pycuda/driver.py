"""Memory of the host in place of the device's; everything but a context's own calls needs one that is current."""

import ctypes
import os

import numpy as np

_cuda = ctypes.CDLL("libcuda.so.1")


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class host_alloc_flags:  # noqa: N801
    DEVICEMAP = 2


ROOM = int(os.environ.get("FAKE_MEMORY", 2**28))
"""Bytes that there are in all."""
alive = {}


def _check():
    context = ctypes.c_void_p()
    _cuda.cuCtxGetCurrent(ctypes.byref(context))
    if not context.value:
        raise Error("invalid device context")


def _find_room(size, function):
    if size + sum(memory.nbytes for memory in alive.values()) > ROOM:
        raise MemoryError(f"{function} failed: out of memory")


class Context:
    def push(self):
        _cuda.cuCtxPushCurrent_v2(ctypes.c_void_p(0x1000))

    @staticmethod
    def pop():
        _check()
        _cuda.cuCtxPopCurrent_v2(None)


class PagelockedHostAllocation:
    def __init__(self, memory):
        self._memory = memory
        alive[memory.ctypes.data] = memory

    __array_interface__ = property(lambda self: self._memory.__array_interface__)

    def get_device_pointer(self):
        return self._memory.ctypes.data

    def free(self):
        _check()
        del alive[self._memory.ctypes.data]


class _Array(np.ndarray):
    @property
    def base(self):
        return self.allocation


class DeviceAllocation:
    def __init__(self, size):
        self._memory = np.zeros(size + 256, np.uint8)
        self._address = self._memory.ctypes.data + -self._memory.ctypes.data % 256
        alive[self._address] = self._memory

    def __int__(self):
        return self._address

    def free(self):
        _check()
        del alive[self._address]


def mem_alloc(bytes):
    _check()
    assert bytes > 0
    _find_room(bytes, "cuMemAlloc")
    return DeviceAllocation(bytes)


def pagelocked_zeros(shape, dtype, order="C", mem_flags=0):
    _check()
    assert mem_flags == host_alloc_flags.DEVICEMAP, "not mapped"
    _find_room(4 * int(np.prod(shape)), "cuMemHostAlloc")
    array = np.zeros(shape, dtype, order).view(_Array)
    array.allocation = PagelockedHostAllocation(np.asarray(array))
    return array


class Stream:
    def __init__(self, flags=0):
        _check()
        self.handle = 8192

    def synchronize(self):
        _check()

    def __del__(self):
        _check()
        assert not alive, "memory outlives its stream"
