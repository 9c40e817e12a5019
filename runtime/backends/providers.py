"""ONNX Runtime, its execution providers, and what each is asked for: never another one in its place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime.errors import MissingEnvironment, UsageFault
from runtime.files import sha256
from runtime.machine import driver
from runtime.machine.tf32 import settle_tf32
from runtime.tensorrt.store import WORKSPACE, engines_directory, private_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.session import GraphFacts

NOT_ON_GPU = ["WeightBiasQuantization"]
"""Optimizers of ONNX Runtime that put nodes in a graph for which its GPU providers have no kernel.

This one quantises float biases of an int8 graph to int32, which is dequantised on the CPU alone.
"""
NOT_IN_HALF = ["NchwcTransformer"]
"""An optimizer for the CPU that ends the process on attention in float16 (ONNX Runtime 1.23 to 1.32)."""
FATAL = 4
"""Log level of ONNX Runtime: it stays silent, what it raises becomes a typed error here."""


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Args:
        name: as ONNX Runtime calls it.
        options: from (whether TF32 is let, engines of this device, digest of the graph) to its options; None for the
            CPU.

    """

    name: str
    options: Callable[[bool, Path, str], dict[str, str]] | None = None

    @property
    def on_gpu(self) -> bool:
        """Return whether it needs one."""
        return self.options is not None


def _cuda(tf32: bool, engines: Path, graph: str) -> dict[str, str]:
    """Let cuDNN choose its convolutions by rule: by timing them all it takes seconds for every new size of a batch."""
    return {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}


def _tensorrt(tf32: bool, engines: Path, graph: str) -> dict[str, str]:
    """Keep the engines of each graph apart: the provider knows them by names of tensors, whatever their weights."""
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
    "cuda": Provider("CUDAExecutionProvider", _cuda),
    "tensorrt": Provider("TensorrtExecutionProvider", _tensorrt),
}


def check_tf32(provider: str, tf32: bool) -> None:
    """Raise `UsageFault` where TF32 is let on what is no GPU."""
    if tf32 and not PROVIDERS[provider].on_gpu:
        raise UsageFault("--tf32 is of a GPU", hint="leave it out, or choose --provider cuda")


def options_of(kind: Provider, state: Path | None, tf32: bool) -> tuple[Callable[[str], dict[str, str]], str]:
    """Return what makes a provider's options of a graph's digest, and the name of the device that it uses.

    Raises:
        MissingEnvironment: it needs a GPU, and it or the GPU is not there; or its engines cannot be kept.
        UsageFault: see `settle_tf32`.

    """
    if kind.options is None:
        return lambda graph: {}, "cpu"
    runtime = load_onnxruntime()
    find(runtime, kind)
    gpu = driver.probe()
    settle_tf32(tf32)
    # What it calls its files tells versions of ONNX Runtime, TensorRT and CUDA apart, but no two devices or drivers.
    device = sha256(f"{gpu.identity()} {gpu.cuda}".encode())
    return partial(kind.options, tf32, engines_directory(state) / f"onnxruntime-{device}"), gpu.name


def find(runtime: Any, kind: Provider) -> None:
    """Raise `MissingEnvironment` unless this ONNX Runtime has the provider."""
    if kind.name not in runtime.get_available_providers():
        raise MissingEnvironment(
            f"this ONNX Runtime has no {kind.name}", hint="install onnxruntime-gpu, or choose --provider cpu"
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


def left_out(facts: GraphFacts, *, on_gpu: bool) -> list[str]:
    """Return the optimizers of ONNX Runtime that a graph is opened without."""
    if on_gpu:
        return NOT_ON_GPU
    return NOT_IN_HALF if facts.computes_in == "float16" else []


def open_plain(graph: bytes, facts: GraphFacts) -> Any:
    """Open any graph on the CPU, silently and else as ONNX Runtime does by default; its errors are its own."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    without = left_out(facts, on_gpu=False)
    return onnxruntime.InferenceSession(graph, options, providers=[PROVIDERS["cpu"].name], disabled_optimizers=without)
