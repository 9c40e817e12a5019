"""The part of TensorRT's Python API that edgeproof touches, and the library loaded.

TensorRT has no usable type stubs. These protocols hold for TensorRT 10.3 to 11; a test holds them against TensorRT-RTX,
whose API has TensorRT 11's shape. Failures are None or False and a word to the logger, never exceptions.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from runtime.errors import EngineFault, MissingEnvironment, OutOfMemory
from runtime.tensorrt.memory import LESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.errors import EdgeproofError

OLDEST = (10, 3)
"""JetPack 6.1's, the first whose strongly typed networks and parser take everything that is exported."""
SOURCE = "on a Jetson it comes with JetPack 6.1 or later, or its container; elsewhere from NVIDIA, not from PyPI alone"
KEPT = 20
"""Messages of TensorRT that are remembered at once."""
SHOWN = 3
NO_MEMORY = re.compile("out ?of ?memory|could not be allocated|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
"""What TensorRT says, as an error among others, where memory of the GPU or the machine ran out."""


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


class CudaEngine(Protocol):
    """ICudaEngine."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Sequence[int]: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]: ...
    def create_execution_context(self, strategy: Any) -> ExecutionContext | None: ...


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
    "ITensor": Tensor,
    "ITimingCache": TimingCache,
    "OnnxParser": OnnxParser,
    "ParserError": ParserError,
    "Runtime": Runtime,
}
"""TensorRT's classes by their names there."""
VALUES = {
    "BuilderFlag": ("TF32",),
    "DataType": ("FLOAT",),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "PreviewFeature": ("RUNTIME_ACTIVATION_RESIZE_10_10",),
    "TensorIOMode": ("INPUT", "OUTPUT"),
}
"""Members of TensorRT's enumerations; PreviewFeature's only from the version that it names."""


@dataclass(frozen=True)
class Library:
    """TensorRT, imported.

    Args:
        module: the Python module.
        listener: an ILogger of it, which keeps what TensorRT says; TensorRT takes the first one of a process for good.
        heard: what it keeps: (severity, text), the newest last.

    """

    module: Any
    listener: Any
    heard: deque[tuple[str, str]]

    @property
    def version(self) -> str:
        """Return its version, as 10.3.0."""
        return str(self.module.__version__)

    def said(self) -> str:
        """Return its last errors in its own words, or its warnings where there is no error."""
        for severities in (("INTERNAL_ERROR", "ERROR"), ("WARNING",)):
            texts = [" ".join(text.split()) for severity, text in tuple(self.heard) if severity in severities]
            if texts:
                return "; ".join(texts[-SHOWN:])
        return "it does not say why"

    def fault(self, what: str, hint: str) -> EdgeproofError:
        """Return the error to raise where something failed, in TensorRT's words: `OutOfMemory`, else `EngineFault`."""
        said = f"{what}: {self.said()}"
        return OutOfMemory(said, hint=LESS) if NO_MEMORY.search(said) else EngineFault(said, hint=hint)

    def made(self, name: str) -> Any:
        """Make one of TensorRT's objects that take its listener alone: Builder or Runtime.

        Raises:
            EngineFault: it does not start, as where the driver is too old for this TensorRT's CUDA.

        """
        self.heard.clear()
        try:
            return getattr(self.module, name)(self.listener)
        except TypeError:  # so the bindings say that there is none
            raise self.fault(f"TensorRT's {name} does not start", "see `nvidia-smi`") from None


@functools.cache
def library_of(module: Any) -> Library:
    """Return the library of a module, with the one listener that the process has for it."""
    heard: deque[tuple[str, str]] = deque(maxlen=KEPT)

    class Listener(module.ILogger):  # type: ignore[misc]
        """Keeps errors and warnings; TensorRT calls it, from any thread."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                heard.append((severity.name, msg))

    return Library(module, Listener(), heard)


def load_tensorrt() -> Library:
    """Import TensorRT; call it after `driver.probe`.

    Raises:
        MissingEnvironment: it is not installed, does not load, or is too old.

    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # the libraries behind it may be missing too
        raise MissingEnvironment(f"TensorRT is not installed: {error}", hint=SOURCE) from None
    version = str(tensorrt.__version__)
    if _release(version) < OLDEST:
        raise MissingEnvironment(
            f"this is TensorRT {version}; edgeproof needs {'.'.join(map(str, OLDEST))} or later", hint=SOURCE
        )
    return library_of(tensorrt)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
