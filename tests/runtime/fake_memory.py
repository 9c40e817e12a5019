"""The Memory protocol over numpy: what runs in its stream is done when it is waited for, and every rule is checked."""

import contextlib
import threading

import numpy as np

from runtime.errors import EngineFault
from runtime.gpu_memory import Buffer
from tests.runtime.fake_tensorrt import done, world


class FakeMemory:
    def __init__(self, room=2**30):
        self.room, self.arrays, self.stream, self.depth = room, {}, 4711, threading.local()
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
        self.check()
        array = np.zeros(shape, np.float32)
        if array.nbytes > self.room:
            raise EngineFault("CUDA: out of memory")
        self.arrays[array.ctypes.data] = array
        return Buffer(array, array.ctypes.data)

    def free(self, buffer):
        self.check()
        assert not world.stream, "memory is freed that a stream still works on"
        del self.arrays[buffer.address]
        buffer.array.fill(np.nan)
        done("memory")

    def synchronize(self):
        self.check()
        while world.stream:
            world.stream.pop(0)()

    def close(self):
        self.check()
        assert not self.arrays, "memory outlives its stream"
        self.stream = 0
        done("stream")
