"""ONNX to a TensorRT engine, on the device that will run it. Needs neither PyTorch nor onnx.

One builder for TensorRT 10.3 and later: the network is strongly typed, so that the graph alone says what is computed in
which precision, and no flag, calibrator or range of TensorRT 8 is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.errors import GraphRefused
from runtime.tensorrt.store import Built
from runtime.terminal.log import log

if TYPE_CHECKING:
    from runtime.tensorrt.api import (
        Builder,
        BuilderConfig,
        Library,
        Network,
        OptimizationProfile,
        ParserError,
        TimingCache,
    )
    from runtime.tensorrt.store import EngineKey

SMALLER = "RUNTIME_ACTIVATION_RESIZE_10_10"
"""Lets a batch that is smaller than the profile's largest work in less memory, from TensorRT 10.10 on."""
UNEXPECTED = "please report it, with the bundle's manifest.json"
NEWEST_OPSET = "TensorRT 10.3 parses up to opset 20; docs/tensorrt.md lists what it does not take"


def build(library: Library, graph: bytes, key: EngineKey, timings: bytes = b"") -> Built:
    """Build the engine of a graph.

    Args:
        library: TensorRT.
        graph: ONNX, batch first and dynamic.
        key: profile, workspace and flags.
        timings: of kernels, from an earlier build on this device; unfit ones are left aside.

    Raises:
        GraphRefused: the parser does not take the graph, or a shape beside the batch is open.
        EngineFault: the builder does not start, or builds nothing.
        OutOfMemory: so TensorRT says why.

    """
    trt = library.module
    builder: Builder = library.made("Builder")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, network, graph)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, key.workspace)
    (config.set_flag if key.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    smaller = getattr(trt.PreviewFeature, SMALLER, None)
    if smaller is not None:
        config.set_preview_feature(smaller, True)
    if config.add_optimization_profile(_profile(builder, network, key)) < 0:
        raise library.fault(f"TensorRT takes no batches of {key.profile.most}", UNEXPECTED)
    cache = _timing_cache(config, timings)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise library.fault("TensorRT builds no engine", "docs/tensorrt.md; `--backend ort` runs the same graph")
    return Built(bytes(memoryview(engine)), bytes(memoryview(cache.serialize())) if cache else b"")


def _parse(library: Library, network: Network, graph: bytes) -> None:
    parser = library.module.OnnxParser(network, library.listener)
    if not parser.parse(graph):
        errors = [_in_words(parser.get_error(index)) for index in range(parser.num_errors)]
        raise GraphRefused(
            f"TensorRT's parser refuses the graph: {'; '.join([*errors, library.said()])}", hint=NEWEST_OPSET
        )


def _in_words(error: ParserError) -> str:
    """Return what the parser has against a node, and against which: some descriptions are a bare 'false'."""
    operator = error.node_operator()
    return error.desc().strip() + (f" at {operator} {error.node_name()!r}" if operator else "")


def _profile(builder: Builder, network: Network, key: EngineKey) -> OptimizationProfile:
    """Give every input the batches of the key's profile."""
    profile, batches = builder.create_optimization_profile(), key.profile
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *row = tuple(tensor.shape)
        if batch != -1 or -1 in row:
            raise GraphRefused(
                f"input {tensor.name} has shape {[batch, *row]}", hint="only the batch, its first axis, may be open"
            )
        least, usual, most = ((n, *row) for n in (batches.least, batches.usual, batches.most))
        profile.set_shape(tensor.name, least, usual, most)
    return profile


def _timing_cache(config: BuilderConfig, timings: bytes) -> TimingCache | None:
    """Attach earlier timings to a build, or none where TensorRT refuses them; the cache must outlive the build."""
    for data in dict.fromkeys((timings, b"")):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
        log.info("TensorRT does not take the timings of an earlier build; it measures again")
    return None
