"""A session on TensorRT: one engine for the artifact's graph, and one for its gradient graph."""

from __future__ import annotations

import atexit
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadModel, EngineFault, OutOfMemory
from runtime.files import sha256
from runtime.graph.facts import graph_facts
from runtime.machine import driver
from runtime.machine.tf32 import settle_tf32
from runtime.session import FORWARD_OUTPUTS, GRADIENT, GRADIENT_OUTPUTS, INPUT, LOGITS, VALUE, Session, SessionCard
from runtime.tensorrt.cuda_memory import open_memory
from runtime.tensorrt.engine import Engine
from runtime.tensorrt.library import load_library
from runtime.tensorrt.memory import BufferPool
from runtime.tensorrt.store import EngineKey, EngineStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.machine.driver import CudaDevice
    from runtime.session import LossSpec
    from runtime.tensorrt.api import CudaEngine
    from runtime.tensorrt.library import Library
    from runtime.tensorrt.memory import Memory
    from runtime.tensorrt.store import Built, Profile


@dataclass(frozen=True)
class Accelerator:
    """A GPU with TensorRT, ready to be used.

    Args:
        gpu: the GPU.
        library: the imported TensorRT.
        memory: the GPU's memory and stream.

    """

    gpu: CudaDevice
    library: Library
    memory: Memory


def open_accelerator(edition: str) -> Accelerator:
    """Find the GPU and load its libraries. The driver comes first, because without it TensorRT ends the process.

    Args:
        edition: one of `library.EDITIONS`.

    Raises:
        MissingEnvironment: driver, GPU, TensorRT, or both cuda-bindings and PyCUDA are missing, or too old; or this
            edition does not serve the GPU.

    """
    gpu = driver.probe()
    library = load_library(edition, gpu)
    memory = open_memory()
    with memory.active():
        return Accelerator(driver.current(), library, memory)


@dataclass(frozen=True)
class EngineFactory:
    """How a session's engines are made.

    Args:
        build: from (TensorRT, graph, key, timings of kernels) to an engine; `export.tensorrt.build`.
        store: keeps engines on disk.
        profile: the batch sizes of the engines.
        tf32: whether the factors of float32 products may be rounded to TF32.

    """

    build: Callable[[Library, bytes, EngineKey, bytes], Built]
    store: EngineStore
    profile: Profile
    tf32: bool = False


class TrtSession(Session):
    """A classifier that TensorRT runs. It holds memory of the GPU until `close`, which also runs when the process ends.

    Args:
        forward: ONNX graph from `input` float32 [B, C, H, W] to `logits` float32 [B, K].
        gradient: ONNX graph from `input` and the fields of LossSpec that it needs, by name, to `logits`, `value` and
            `gradient`. None: only attacks without gradients can run.
        precision: the graph's name in the bundle, for the card. What the graph computes in follows from its bytes.
        factory: makes the engines.
        accelerator: the GPU on which they run; the session closes its memory.

    Raises:
        BadModel: TensorRT rejects a graph, or the graph has other inputs or outputs.
        EngineFault: an engine cannot be built, loaded or started.
        OutOfMemory: the engines do not fit into memory, even without images.
        MissingEnvironment: engines cannot be stored on disk.
        UsageFault: see `settle_tf32`.

    """

    def __init__(
        self,
        forward: bytes,
        gradient: bytes | None,
        *,
        precision: str,
        factory: EngineFactory,
        accelerator: Accelerator,
    ) -> None:
        settle_tf32(factory.tf32)
        self._library, self._memory = accelerator.library, accelerator.memory
        self._lock = threading.Lock()
        self._buffers = BufferPool(self._memory)
        self._engines: list[Engine] = []
        self._runtime: Any = None
        self._closed = False
        atexit.register(self.close)
        try:
            with self._memory.active():
                self._runtime = self._library.made("Runtime")
                self._forward = self._open("forward graph", forward, FORWARD_OUTPUTS, factory, accelerator.gpu)
                self._gradient = (
                    self._open("gradient graph", gradient, GRADIENT_OUTPUTS, factory, accelerator.gpu)
                    if gradient
                    else None
                )
        except BaseException:
            self.close()
            raise
        self._card = SessionCard(
            sha256(forward),
            precision,
            "tensorrt",
            self._library.edition.name,
            device=accelerator.gpu.name,
            engine_sha256=self._forward.sha256,
            gradient_sha256=sha256(gradient) if gradient else None,
            differentiable=gradient is not None,
            tf32=factory.tf32,
            rounds_apart=True,
            facts=graph_facts(forward),
        )

    def logits(self, x: Any) -> Any:
        """Return the logits of the artifact: float32 [B, K].

        Raises:
            BadModel: the engine does not accept this shape.
            EngineFault: the engine fails.
            OutOfMemory: the batch does not fit into memory.

        """
        return self._run(self._forward, {INPUT: x})[LOGITS]

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return (logits, value, gradient) of the gradient engine.

        Raises:
            BadModel: there is no gradient engine, or it does not accept this shape.
            EngineFault: the engine fails.
            OutOfMemory: the batch does not fit into memory.

        """
        if self._gradient is None:
            raise BadModel("this precision has no gradient graph", hint="--gradient none attacks it with Square alone")
        found = self._run(self._gradient, {INPUT: x, **vars(loss)})
        return found[LOGITS], found[VALUE], found[GRADIENT]

    def card(self) -> SessionCard:
        """Return the digests of the artifact and its engine, the precision, backend and device."""
        return self._card

    def close(self) -> None:
        """Release contexts, engines, runtime, memory and stream, in this order; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with self._lock, self._memory.active(), ExitStack() as last_first:
            last_first.callback(self._memory.close)
            last_first.callback(self._buffers.clear)
            last_first.callback(partial(setattr, self, "_runtime", None))
            for engine in self._engines:
                last_first.callback(engine.drop)
            for engine in self._engines:
                last_first.callback(engine.drop_context)
            self._settle()

    def _open(
        self, role: str, graph: bytes, outputs: tuple[str, ...], factory: EngineFactory, gpu: CudaDevice
    ) -> Engine:
        key = EngineKey(
            graph_sha256=sha256(graph),
            tensorrt=self._library.version,
            cuda=gpu.cuda,
            gpu=gpu.name,
            compute_capability=gpu.compute_capability,
            profile=factory.profile,
            tf32=factory.tf32,
        )
        engine = Engine(role, self._library)
        self._engines.append(engine)
        build, load = partial(factory.build, self._library, graph, key), partial(engine.load, self._deserialize)
        engine.sha256 = factory.store.obtain(key, build, load, role)
        engine.start()
        engine.check(outputs)
        for name, row in engine.rows.items():  # tensors of the same name share their memory
            if any(each.rows.get(name, row) != row for each in self._engines):
                raise BadModel(f"forward and gradient graph differ in {name}", hint="export them again")
        return engine

    def _deserialize(self, data: bytes) -> CudaEngine | None:
        engine: CudaEngine | None = self._runtime.deserialize_cuda_engine(data)
        return engine

    def _run(self, engine: Engine, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run an engine on its inputs in float32, in batches that it accepts; return its outputs by name."""
        wanted = {name: np.ascontiguousarray(feeds[name], np.float32) for name in engine.inputs}
        n = len(wanted[INPUT])
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
            try:
                for start in range(0, n, engine.most):
                    rows = slice(start, min(start + engine.most, n))
                    self._pass(engine, rows, wanted, found)
            except OutOfMemory:  # free the memory for a smaller batch
                self._settle()
                self._buffers.clear()
                raise
        return found

    def _settle(self) -> None:
        """Wait for running work before its memory is freed; the call that began the work has reported its failure."""
        with suppress(EngineFault):
            self._memory.synchronize()

    def _pass(self, engine: Engine, rows: slice, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        n = rows.stop - rows.start
        for name, array in wanted.items():
            self._buffers.rows(name, n, array.shape[1:]).array[:n] = array[rows]
        engine.run(n, self._buffers, self._memory)
        for name, array in found.items():
            array[rows] = self._buffers.rows(name, n, array.shape[1:]).array[:n]
