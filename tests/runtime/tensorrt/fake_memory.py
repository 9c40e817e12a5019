"""The Memory protocol over numpy: what runs in its stream is done when it is waited for, and every rule is checked."""

import contextlib
import threading

import numpy as np

from runtime.errors import EngineFault, OutOfMemory
from runtime.tensorrt.memory import ALIGNMENT, Buffer
from tests.runtime.tensorrt.fake_tensorrt import world


class FakeMemory:
    """`room`: bytes that there are in all; `broken`: what waiting for the stream raises."""

    def __init__(self, room=2**30):
        self.room, self.arrays, self.stream, self.depth = room, {}, 4711, threading.local()
        self.largest, self.broken = 0, None
        world.stream = []

    @contextlib.contextmanager
    def active(self):
        self.depth.n = getattr(self.depth, "n", 0) + 1
        try:
            yield
        finally:
            self.depth.n -= 1

    def check(self):
        assert getattr(self.depth, "n", 0) > 0, "the context is not current in this thread"
        assert self.stream, "the stream is closed"

    def allocate(self, shape):
        array = self.new(np.zeros(shape, np.float32))
        return Buffer(array.ctypes.data, array, array)

    def reserve(self, size):
        array = self.new(np.zeros(size + ALIGNMENT, np.uint8))
        aligned = array[-array.ctypes.data % ALIGNMENT :][:size]
        self.arrays[aligned.ctypes.data] = self.arrays.pop(array.ctypes.data)
        return Buffer(aligned.ctypes.data, aligned)

    def new(self, array):
        self.check()
        if array.nbytes + self.held() > self.room:
            raise OutOfMemory("CUDA: out of memory")
        self.arrays[array.ctypes.data] = array
        self.largest = max(self.largest, self.held())
        return array

    def held(self):
        return sum(array.nbytes for array in self.arrays.values())

    def free(self, buffer):
        self.check()
        assert not world.stream, "memory is freed that a stream still works on"
        array = self.arrays.pop(buffer.address)
        array.fill(np.nan if array.dtype == np.float32 else 0xFF)

    def synchronize(self):
        self.check()
        if self.broken:
            world.stream.clear()
            raise EngineFault(self.broken)
        while world.stream:
            world.stream.pop(0)()

    def close(self):
        self.check()
        assert not self.arrays, "memory outlives its stream"
        self.stream = 0
