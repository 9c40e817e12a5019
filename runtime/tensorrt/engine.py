"""A loaded TensorRT engine with its execution context, which runs batches from memory."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from runtime.errors import BadModel
from runtime.session import INPUT, LossSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runtime.errors import EdgeproofError
    from runtime.tensorrt.api import CudaEngine, ExecutionContext, RuntimeConfig
    from runtime.tensorrt.library import Library
    from runtime.tensorrt.memory import BufferPool, Memory

FEEDS = {INPUT, *(field.name for field in fields(LossSpec))}
SEE = "see docs/tensorrt.md"


class Engine:
    """An engine and its context. `rows` has the shapes of its tensors by name, without the batch.

    No local variable of a function that may fail holds the engine, the context or the runtime. Otherwise the traceback
    of an error would keep them alive after their memory is freed.
    """

    def __init__(self, role: str, library: Library) -> None:
        self.role, self.sha256, self._library = role, "", library
        self._engine: CudaEngine | None = None
        self._config: RuntimeConfig | None = None
        self._context: ExecutionContext | None = None

    def load(self, deserialize: Callable[[bytes], CudaEngine | None], data: bytes) -> None:
        """Deserialise the engine.

        Raises:
            EngineFault: TensorRT cannot load it.
            OutOfMemory: its weights do not fit into memory.

        """
        self._library.heard.clear()
        self._engine = deserialize(data)
        if self._engine is None:
            raise self._fault("is not loaded")

    def start(self) -> None:
        """Make the context, and read the tensors' names, shapes and types.

        The context gets its working memory for each pass, so that a smaller batch takes less and two engines share it.

        Raises:
            EngineFault: TensorRT cannot make a context.
            OutOfMemory: the context does not fit into memory.

        """
        assert self._engine is not None
        trt = self._library.module
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        self.rows = {name: shape[1:] for name, shape in shapes.items()}
        self.types = {name: self._engine.get_tensor_dtype(name) for name in names}
        self._fixed = [name for name, shape in shapes.items() if shape[:1] != (-1,)]
        self.most = min(self._engine.get_tensor_profile_shape(name, 0)[2][0] for name in self.inputs)
        self._make_context()
        if self._context is None:
            raise self._fault("does not start")

    def _make_context(self) -> None:
        """Make a context that allocates no memory itself, and always gives the same answers to the same batch.

        By default, TensorRT-RTX compiles kernels for a batch size in the background, and switches to them between two
        passes.
        """
        assert self._engine is not None
        trt = self._library.module
        managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._library.edition.times_kernels:
            self._context = self._engine.create_execution_context(managed)
            return
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(managed)
        self._config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.NONE
        self._context = self._engine.create_execution_context(self._config)

    def check(self, outputs: Collection[str]) -> None:
        """Raise `BadModel` unless its tensors are those of a session: float32, with one row per image."""
        trt = self._library.module
        missing = ({INPUT} - set(self.inputs)) | (set(outputs) - set(self.outputs))
        unknown = set(self.inputs) - FEEDS
        if missing or unknown:
            what = f"has no {', '.join(sorted(missing))}" if missing else f"asks for {', '.join(sorted(unknown))}"
            raise BadModel(f"the {self.role} {what}", hint="a bundle's graphs have fixed names for inputs and outputs")
        for name in self._fixed:
            raise BadModel(f"the {self.role} has {name} without a free batch", hint="export it again")
        for name, row in self.rows.items():
            if self.types[name] != trt.DataType.FLOAT or -1 in row:
                raise BadModel(f"the {self.role} has {name} as {self.types[name]} {list(row)}", hint="export it again")

    def run(self, n: int, buffers: BufferPool, memory: Memory) -> None:
        """Run the first n rows of the buffers, and wait for the result.

        Raises:
            EngineFault: the engine does not run.
            OutOfMemory: the rows do not fit into memory.

        """
        assert self._context is not None
        self._library.heard.clear()
        for name in self.inputs:
            if not self._context.set_input_shape(name, (n, *self.rows[name])):
                raise self._fault(f"does not take {n} rows of {name}")
        size = self._context.update_device_memory_size_for_shapes()
        self._context.set_device_memory(buffers.working(size), size)
        for name, row in self.rows.items():
            if not self._context.set_tensor_address(name, buffers.rows(name, n, row).address):
                raise self._fault(f"does not take the memory of {name}")
        if not self._context.execute_async_v3(memory.stream):
            raise self._fault("does not run")
        memory.synchronize()

    def drop_context(self) -> None:
        """Release the context; call it before the engine is released."""
        self._context = None
        self._config = None

    def drop(self) -> None:
        """Release the engine."""
        self._engine = None

    def _fault(self, what: str) -> EdgeproofError:
        return self._library.fault(f"the engine of the {self.role} {what}", SEE)
