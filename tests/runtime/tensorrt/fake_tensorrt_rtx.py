"""TensorRT-RTX as far as edgeproof touches it: the stand-in of TensorRT, but for what RTX has otherwise.

- Timing caches do nothing, with a DeprecationWarning.
- The flag of strongly typed networks is another bit.
- Neither loads the engines of the other.
- It names the GPUs that it serves.
- It compiles kernels for a batch's size while others run, and changes to them when it can, unless it is told not to:
  here from the second pass of a size on.
"""

import enum
import warnings
from collections import Counter

import numpy as np

from tests.runtime.tensorrt import fake_tensorrt as tensorrt
from tests.runtime.tensorrt.fake_tensorrt import (
    BuilderFlag,
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    MemoryPoolType,
    OnnxParser,
    ParserError,
    PreviewFeature,
    TensorIOMode,
)

__all__ = [
    "BuilderFlag", "DataType", "ExecutionContextAllocationStrategy", "ILogger", "INetworkDefinition",
    "IOptimizationProfile", "ITensor", "ITimingCache", "MemoryPoolType", "OnnxParser", "ParserError", "PreviewFeature",
    "TensorIOMode",
]  # fmt: skip
__version__ = "1.7.1.116"
HEADER = b"RTX "
ROUNDED = np.float32(1 + 2**-18)
"""What the kernels for one size of a batch round otherwise."""

NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
ComputeCapability = enum.IntEnum(
    "ComputeCapability",
    {"NONE": 0, "CURRENT": 1, "SM75": 75, "SM80": 80, "SM86": 86, "SM89": 89, "SM120": 120, "SM121": 121},
)
DynamicShapesKernelSpecializationStrategy = enum.IntEnum(
    "DynamicShapesKernelSpecializationStrategy", {"LAZY": 0, "EAGER": 1, "NONE": 2}
)


class IBuilderConfig(tensorrt.IBuilderConfig):
    __slots__ = ()

    def create_timing_cache(self, serialized_timing_cache):
        warnings.warn("Use Deprecated in TensorRT-RTX", DeprecationWarning, stacklevel=2)
        return super().create_timing_cache(b"")


class Builder(tensorrt.Builder):
    __slots__ = ()

    def create_network(self, flags=0):
        return INetworkDefinition(bool(flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def create_builder_config(self):
        return IBuilderConfig(self._logger)

    def build_serialized_network(self, network, config):
        engine = super().build_serialized_network(network, config)
        return None if engine is None else memoryview(HEADER + bytes(engine))


class Runtime(tensorrt.Runtime):
    __slots__ = ()

    def deserialize_cuda_engine(self, serialized_engine):
        engine = super().deserialize_cuda_engine(serialized_engine.removeprefix(HEADER))
        if engine is None or not serialized_engine.startswith(HEADER):
            tensorrt.say(self._logger, "ERROR", "The engine plan file is not compatible with this version of TensorRT")
            return None
        return ICudaEngine(engine._what, engine._model, engine._logger)


class IRuntimeConfig:
    __slots__ = ("_allocation", "dynamic_shapes_kernel_specialization_strategy")

    def __init__(self):
        self._allocation = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy=ExecutionContextAllocationStrategy.STATIC):
        self._allocation = ExecutionContextAllocationStrategy(strategy)


class ICudaEngine(tensorrt.ICudaEngine):
    __slots__ = ()

    def create_runtime_config(self):
        return IRuntimeConfig()

    def create_execution_context(self, strategy=0):
        config = strategy if isinstance(strategy, IRuntimeConfig) else IRuntimeConfig()
        allocation = config._allocation if config is strategy else strategy
        made = super().create_execution_context(allocation)
        return made and IExecutionContext(self, config.dynamic_shapes_kernel_specialization_strategy)


class IExecutionContext(tensorrt.IExecutionContext):
    __slots__ = ("_passes", "_specialisation")

    def __new__(cls, engine, specialisation):
        return super().__new__(cls, engine)

    def __init__(self, engine, specialisation):
        super().__init__(engine)
        self._specialisation, self._passes = specialisation, Counter()

    def _execute(self, shapes):
        super()._execute(shapes)
        size = shapes["input"]
        self._passes[size] += 1
        if self._specialised(self._passes[size]):
            for output in self._session.get_outputs():
                view = self._view(output.name, (size[0], *self._engine.get_tensor_shape(output.name)[1:]))
                view *= ROUNDED

    def _specialised(self, passes):
        strategies = DynamicShapesKernelSpecializationStrategy
        lazy = self._specialisation == strategies.LAZY and passes > 1
        return lazy or self._specialisation == strategies.EAGER
