"""ONNX Runtime's execution providers and their options. No provider falls back on another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime.errors import MissingEnvironment, Page, UsageFault
from runtime.files import sha256
from runtime.machine import driver
from runtime.machine.tf32 import settle_tf32
from runtime.tensorrt.library import EDITIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.machine.driver import CudaDevice
    from runtime.session import GraphFacts

NOT_ON_GPU = ["WeightBiasQuantization"]
"""Optimizers of ONNX Runtime that add nodes for which its GPU providers have no kernel.

This one quantises the float biases of an int8 graph to int32, which only the CPU can dequantise.
"""
NOT_IN_HALF = ["NchwcTransformer"]
"""A CPU optimizer that crashes the process on attention in float16 (ONNX Runtime 1.23 to 1.32)."""
CAPTURES = {"enable_cuda_graph": "1"}
"""The option by which a session captures CUDA graphs. ONNX Runtime refuses it if any node would run elsewhere."""
FATAL = 4
"""The log level that keeps ONNX Runtime silent; its exceptions become typed errors here."""

NO_MEMORY = re.compile(
    "bad_alloc|failed to allocate memory|out of memory|ALLOC_FAILED|can't start new thread", re.IGNORECASE
)
"""Messages of ONNX Runtime and CUDA when memory runs out; such errors have no type of their own."""


@dataclass(frozen=True)
class Plugin:
    """An execution provider from a plugin's library.

    Args:
        device: ONNX Runtime's OrtEpDevice.
        options: of the provider.
        library_sha256: digest of the library's file.
        called: the device, in words.

    """

    device: Any
    options: dict[str, str]
    library_sha256: str
    called: str


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Args:
        name: its name in ONNX Runtime.
        options: from (whether TF32 is allowed, directory of this device's engines, digest of the graph) to its
            options; None for the CPU and for a plugin.
        captures: whether it can replay a whole graph as a CUDA graph.
        plugin: the plugin that contains it; None if ONNX Runtime does.

    """

    name: str
    options: Callable[[bool, Path, str], dict[str, str]] | None = None
    captures: bool = False
    plugin: Plugin | None = None

    @property
    def on_gpu(self) -> bool:
        """Return whether it is one of NVIDIA's, which need a GPU."""
        return self.options is not None

    @property
    def is_default(self) -> bool:
        """Return whether it is ONNX Runtime's own CPU provider, to which no other provider may leave a node."""
        return self.options is None and self.plugin is None


def _cuda(tf32: bool, engines: Path, graph: str) -> dict[str, str]:
    """Let cuDNN choose convolutions by heuristics; to time them all would take seconds for each new batch size."""
    return {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}


def _tensorrt(tf32: bool, engines: Path, graph: str) -> dict[str, str]:
    """Keep the engines of each graph in a directory of its own: the provider names them after tensors, not weights."""
    from runtime.tensorrt.store import WORKSPACE, private_directory

    directory = engines / (graph + "-tf32" * tf32)
    private_directory(engines)
    private_directory(directory)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(directory),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_max_workspace_size": str(WORKSPACE),
    }


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider"),
    "cuda": Provider("CUDAExecutionProvider", _cuda, captures=True),
    "tensorrt": Provider("TensorrtExecutionProvider", _tensorrt),
}


def check_tf32(provider: str, tf32: bool) -> None:
    """Raise `UsageFault` if TF32 is allowed on a processor that has no TF32."""
    if tf32 and provider not in EDITIONS and not (provider in PROVIDERS and PROVIDERS[provider].on_gpu):
        raise UsageFault("--tf32 needs a GPU", hint="leave it out, or choose --provider cuda")


def options_of(
    kind: Provider, state: Path | None, tf32: bool
) -> tuple[Callable[[str], dict[str, str]], CudaDevice | None]:
    """Return a function from a graph's digest to the provider's options, and its GPU; None for the CPU or a plugin.

    Raises:
        MissingEnvironment: the provider or the GPU that it needs is missing, or its engines cannot be stored.
        UsageFault: see `settle_tf32`.

    """
    from runtime.tensorrt.store import engines_directory

    if kind.options is None:
        return lambda graph: {}, None
    runtime = load_onnxruntime()
    find(runtime, kind)
    gpu = driver.probe()
    settle_tf32(tf32)
    # The provider's file names distinguish versions of ONNX Runtime, TensorRT and CUDA, but not devices and drivers.
    device = sha256(f"{gpu.identity()} {gpu.cuda}".encode())
    return partial(kind.options, tf32, engines_directory(state) / f"onnxruntime-{device}"), gpu


def find(runtime: Any, kind: Provider) -> None:
    """Raise `MissingEnvironment` unless this ONNX Runtime has the provider."""
    if kind.name not in runtime.get_available_providers():
        raise MissingEnvironment(
            f"this ONNX Runtime has no {kind.name}",
            hint="install onnxruntime-gpu, or choose --provider cpu",
            page=Page.ON_A_GPU,
        )


def load_onnxruntime() -> Any:
    """Import ONNX Runtime and keep it silent.

    Raises:
        MissingEnvironment: it is not installed.

    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingEnvironment(f"ONNX Runtime is missing: {error}", hint="pip install onnxruntime") from None
    onnxruntime.set_default_logger_severity(FATAL)
    return onnxruntime


def is_memory(error: Exception) -> bool:
    """Return whether an error of ONNX Runtime means that memory ran out."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


def left_out(facts: GraphFacts, *, on_gpu: bool) -> list[str]:
    """Return the optimizers of ONNX Runtime to disable for a graph."""
    if on_gpu:
        return NOT_ON_GPU
    return NOT_IN_HALF if facts.computes_in == "float16" else []


def open_plain(graph: bytes, facts: GraphFacts) -> Any:
    """Open any graph on the CPU, silently and else with ONNX Runtime's defaults; it raises ONNX Runtime's errors."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    without = left_out(facts, on_gpu=False)
    return onnxruntime.InferenceSession(graph, options, providers=[PROVIDERS["cpu"].name], disabled_optimizers=without)
