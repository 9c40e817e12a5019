"""The part of TensorRT's Python API that edgeproof uses.

TensorRT has no usable type stubs. These protocols describe TensorRT 10.3 to 11 and TensorRT-RTX, whose API is like
TensorRT 11's; a test compares them with TensorRT-RTX. On failure, functions return None or False and log a message;
they raise no exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tensor(Protocol):
    """ITensor."""

    name: str
    shape: Sequence[int]


class Network(Protocol):
    """INetworkDefinition."""

    num_inputs: int

    def get_input(self, index: int) -> Tensor: ...


class OptimizationProfile(Protocol):
    """IOptimizationProfile; `set_shape` raises ValueError."""

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None: ...


class TimingCache(Protocol):
    """ITimingCache."""

    def serialize(self) -> Any: ...


class BuilderConfig(Protocol):
    """IBuilderConfig."""

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def set_flag(self, flag: Any) -> None: ...
    def clear_flag(self, flag: Any) -> None: ...
    def set_preview_feature(self, feature: Any, enable: bool) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool: ...
    def add_optimization_profile(self, profile: OptimizationProfile) -> int: ...


class Builder(Protocol):
    """Builder."""

    def create_network(self, flags: int) -> Network: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> OptimizationProfile: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Any: ...


class ParserError(Protocol):
    """ParserError."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """OnnxParser."""

    num_errors: int

    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class ExecutionContext(Protocol):
    """IExecutionContext."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def update_device_memory_size_for_shapes(self) -> int: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class RuntimeConfig(Protocol):
    """IRuntimeConfig, with which TensorRT-RTX makes a context."""

    dynamic_shapes_kernel_specialization_strategy: Any

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None: ...


class CudaEngine(Protocol):
    """ICudaEngine; `create_execution_context` also takes a RuntimeConfig, which TensorRT 10.3 does not have."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]: ...
    def create_execution_context(self, strategy: Any) -> ExecutionContext | None: ...
    def create_runtime_config(self) -> RuntimeConfig: ...


class Runtime(Protocol):
    """Runtime."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None: ...


CLASSES: dict[str, type] = {
    "Builder": Builder,
    "IBuilderConfig": BuilderConfig,
    "ICudaEngine": CudaEngine,
    "IExecutionContext": ExecutionContext,
    "INetworkDefinition": Network,
    "IOptimizationProfile": OptimizationProfile,
    "IRuntimeConfig": RuntimeConfig,
    "ITensor": Tensor,
    "ITimingCache": TimingCache,
    "OnnxParser": OnnxParser,
    "ParserError": ParserError,
    "Runtime": Runtime,
}
"""TensorRT's classes, by their names in TensorRT."""
VALUES = {
    "BuilderFlag": ("TF32",),
    "DataType": ("FLOAT",),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "PreviewFeature": ("RUNTIME_ACTIVATION_RESIZE_10_10",),
    "TensorIOMode": ("INPUT", "OUTPUT"),
}
"""Members of TensorRT's enumerations. That of PreviewFeature exists only from the version in its name on."""
VALUES_OF_RTX = {"DynamicShapesKernelSpecializationStrategy": ("NONE",), "ComputeCapability": ("SM80", "SM86", "SM89")}
"""Members of enumerations that only TensorRT-RTX has."""
