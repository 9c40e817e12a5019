"""TensorRT behind the Session protocol: an engine of the artifact's graph, and one of its gradient graph."""

from __future__ import annotations

import atexit
import threading
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime import gpu_driver
from runtime.engines import EngineKey, EngineStore
from runtime.errors import BadModel, EngineFault
from runtime.files import sha256
from runtime.gpu_memory import PycudaMemory
from runtime.session import LossSpec, SessionCard
from runtime.tensorrt_api import load_tensorrt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.engines import Built, Profile
    from runtime.gpu_driver import Gpu
    from runtime.gpu_memory import Buffer, Memory
    from runtime.tensorrt_api import CudaEngine, ExecutionContext, Library

FEEDS = {"input", *(field.name for field in fields(LossSpec))}
SEE = "docs/tensorrt.md says what to look at"
FORWARD, GRADIENT = ("logits",), ("logits", "value", "gradient")


@dataclass(frozen=True)
class Accelerator:
    """A GPU with TensorRT, ready to be used.

    Args:
        gpu: which one.
        library: TensorRT.
        memory: its memory and stream.

    """

    gpu: Gpu
    library: Library
    memory: Memory


def open_accelerator() -> Accelerator:
    """Find the GPU and what is needed to use it; the driver first, since TensorRT dies without.

    Raises:
        MissingEnvironment: driver, GPU, TensorRT or PyCUDA is missing, or too old.

    """
    gpu_driver.probe()
    library = load_tensorrt()
    memory = PycudaMemory()
    with memory.active():
        return Accelerator(gpu_driver.current(), library, memory)


@dataclass(frozen=True)
class Making:
    """How a session's engines are made.

    Args:
        build: from (TensorRT, graph, key, timings of kernels) to an engine; `export.to_engine.build`.
        store: keeps them.
        profile: their batches.
        tf32: whether float32 products may be rounded to TF32.

    """

    build: Callable[[Library, bytes, EngineKey, bytes], Built]
    store: EngineStore
    profile: Profile
    tf32: bool = False


class TrtSession:
    """A classifier run by TensorRT. It holds memory of the GPU until `close`, which the end of the process calls too.

    Args:
        forward: ONNX graph, `input` float32 [B, C, H, W] to `logits` float32 [B, K].
        gradient: ONNX graph with `input` and those fields of LossSpec that it needs, by name,
            to `logits`, `value`, `gradient`. None: only attacks without gradients run.
        precision: what the graph computes in, for the card.
        making: how the engines are made.
        accelerator: what they run on; the session closes its memory.

    Raises:
        BadModel: a graph that TensorRT does not take, or with other inputs and outputs.
        EngineFault: an engine cannot be built or loaded, or the GPU's memory is short.
        MissingEnvironment: engines cannot be kept on disk.

    """

    def __init__(
        self, forward: bytes, gradient: bytes | None, *, precision: str, making: Making, accelerator: Accelerator
    ) -> None:
        self._library, self._memory = accelerator.library, accelerator.memory
        self._lock = threading.Lock()
        self._buffers: dict[str, Buffer] = {}
        self._engines: list[_Engine] = []
        self._runtime: Any = None
        self._closed = False
        atexit.register(self.close)
        try:
            with self._memory.active():
                self._runtime = self._library.module.Runtime(self._library.listener)
                self._forward = self._open("forward graph", forward, FORWARD, making, accelerator.gpu)
                self._gradient = (
                    self._open("gradient graph", gradient, GRADIENT, making, accelerator.gpu) if gradient else None
                )
                self._allocate()
        except BaseException:
            self.close()
            raise
        self._card = SessionCard(
            sha256(forward),
            precision,
            "tensorrt",
            "tensorrt",
            device=accelerator.gpu.name,
            engine_sha256=self._forward.sha256,
            gradient_sha256=sha256(gradient) if gradient else None,
            differentiable=gradient is not None,
            tf32=making.tf32,
        )

    def logits(self, x: Any) -> Any:
        """Return the logits of the artifact: float32 [B, K].

        Raises:
            BadModel: the engine does not take this shape.
            EngineFault: it fails.

        """
        return self._run(self._forward, {"input": x})["logits"]

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return (logits, value, gradient) of the gradient engine.

        Raises:
            BadModel: there is none, or it does not take this shape.
            EngineFault: it fails.

        """
        if self._gradient is None:
            raise BadModel("this precision has no gradient graph", hint="--gradient none attacks it by Square alone")
        found = self._run(self._gradient, {"input": x, **vars(loss)})
        return found["logits"], found["value"], found["gradient"]

    def card(self) -> SessionCard:
        """Return the artifact's and its engine's digest, precision, backend and device."""
        return self._card

    def close(self) -> None:
        """Let go of contexts, engines, runtime, memory and stream, in this order; a second time nothing happens."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with self._lock, self._memory.active(), ExitStack() as last_first:
            last_first.callback(self._memory.close)
            for buffer in self._buffers.values():
                last_first.callback(self._memory.free, buffer)
            last_first.callback(partial(setattr, self, "_runtime", None))
            for engine in self._engines:
                last_first.callback(engine.drop)
            for engine in self._engines:
                last_first.callback(engine.drop_context)
            last_first.callback(self._memory.synchronize)

    def _open(self, role: str, graph: bytes, outputs: Sequence[str], making: Making, gpu: Gpu) -> _Engine:
        key = EngineKey(
            graph_sha256=sha256(graph),
            tensorrt=self._library.version,
            cuda=gpu.cuda,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            profile=making.profile,
            tf32=making.tf32,
        )
        engine = _Engine(role, self._library)
        self._engines.append(engine)
        build, load = partial(making.build, self._library, graph, key), partial(engine.load, self._deserialize)
        engine.sha256 = making.store.obtain(key, build, load, role)
        engine.start()
        engine.check(outputs)
        return engine

    def _deserialize(self, data: bytes) -> CudaEngine | None:
        engine: CudaEngine | None = self._runtime.deserialize_cuda_engine(data)
        return engine

    def _allocate(self) -> None:
        """Give every tensor its memory, by its name: what two engines call the same they share."""
        for engine in self._engines:
            for name, row in engine.rows.items():
                shape = (engine.most, *row)
                if name not in self._buffers:
                    self._buffers[name] = self._memory.allocate(shape)
                elif self._buffers[name].array.shape != shape:
                    raise BadModel(f"forward and gradient graph differ in {name}", hint="export them again")
                engine.bind(name, self._buffers[name].address)

    def _run(self, engine: _Engine, feeds: dict[str, Any]) -> dict[str, Any]:
        """Feed an engine what it asks for, as float32, in batches that it takes; return its outputs by name."""
        wanted = {name: np.ascontiguousarray(feeds[name], np.float32) for name in engine.inputs}
        n = len(wanted["input"])
        for name, array in wanted.items():
            if array.shape != (n, *engine.rows[name]):
                raise BadModel(
                    f"the {engine.role} takes {name} [B, {', '.join(map(str, engine.rows[name]))}]",
                    hint=f"it was fed {list(array.shape)}",
                )
        found = {name: np.empty((n, *engine.rows[name]), np.float32) for name in engine.outputs}
        with self._lock, self._memory.active():
            if self._closed:
                raise EngineFault("this session is closed", hint="open it again")
            for start in range(0, n, engine.most):
                rows = slice(start, min(start + engine.most, n))
                for name, array in wanted.items():
                    self._buffers[name].array[: rows.stop - start] = array[rows]
                engine.run(rows.stop - start, self._memory)
                for name, array in found.items():
                    array[rows] = self._buffers[name].array[: rows.stop - start]
        return found


class _Engine:
    """An engine and its context; tensors by name, `rows` their shapes without the batch.

    No variable of a function that may fail holds them, nor the runtime: the traceback of an error would keep them
    longer than their memory.
    """

    def __init__(self, role: str, library: Library) -> None:
        self.role, self.sha256, self._library = role, "", library
        self._engine: CudaEngine | None = None
        self._context: ExecutionContext | None = None

    def load(self, deserialize: Callable[[bytes], CudaEngine | None], data: bytes) -> None:
        """Deserialise it."""
        self._library.heard.clear()
        self._engine = deserialize(data)
        if self._engine is None:
            raise EngineFault(f"TensorRT does not load the engine: {self._library.said()}", hint=SEE)

    def start(self) -> None:
        """Make its context, and look at its tensors."""
        assert self._engine is not None
        trt = self._library.module
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self.rows = {name: tuple(self._engine.get_tensor_shape(name))[1:] for name in names}
        self.types = {name: self._engine.get_tensor_dtype(name) for name in names}
        self.most = min(self._engine.get_tensor_profile_shape(name, 0)[2][0] for name in self.inputs)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._fault("has no room on the GPU")

    def check(self, outputs: Sequence[str]) -> None:
        """Raise `BadModel` unless it takes and gives what a session needs, in float32."""
        trt = self._library.module
        missing = ({"input"} - set(self.inputs)) | (set(outputs) - set(self.outputs))
        unknown = set(self.inputs) - FEEDS
        if missing or unknown:
            what = f"has no {', '.join(sorted(missing))}" if missing else f"asks for {', '.join(sorted(unknown))}"
            raise BadModel(f"the {self.role} {what}", hint="inputs and outputs go by name")
        for name, row in self.rows.items():
            if self.types[name] != trt.DataType.FLOAT or -1 in row:
                raise BadModel(f"the {self.role} has {name} as {self.types[name]} {list(row)}", hint="export it again")

    def bind(self, name: str, address: int) -> None:
        """Tell the context where a tensor lies."""
        assert self._context is not None
        if not self._context.set_tensor_address(name, address):
            raise self._fault(f"does not take the memory of {name}")

    def run(self, n: int, memory: Memory) -> None:
        """Run the first n rows of what lies in memory, and wait."""
        assert self._context is not None
        self._library.heard.clear()
        for name in self.inputs:
            if not self._context.set_input_shape(name, (n, *self.rows[name])):
                raise self._fault(f"does not take {n} rows of {name}")
        if not self._context.execute_async_v3(memory.stream):
            raise self._fault("does not run")
        memory.synchronize()

    def drop_context(self) -> None:
        """Let go of the context, which must be before the engine."""
        self._context = None

    def drop(self) -> None:
        """Let go of the engine."""
        self._engine = None

    def _fault(self, what: str) -> EngineFault:
        return EngineFault(f"the engine of the {self.role} {what}: {self._library.said()}", hint="see docs/tensorrt.md")
