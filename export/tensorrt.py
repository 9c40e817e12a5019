"""ONNX to a TensorRT engine, on the device that will run it. Needs neither PyTorch nor onnx.

One builder serves TensorRT 10.3 and later. The network is strongly typed, so that the graph alone sets the precisions.
No flag, calibrator or range of TensorRT 8 is used.
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
        Network,
        OptimizationProfile,
        ParserError,
        TimingCache,
    )
    from runtime.tensorrt.library import Library
    from runtime.tensorrt.store import EngineKey

SMALLER = "RUNTIME_ACTIVATION_RESIZE_10_10"
"""Lets a batch that is smaller than the profile's largest use less working memory, from TensorRT 10.10 on."""
UNEXPECTED = "please report it, with the bundle's manifest.json"
OTHERWISE = "docs/tensorrt.md; `--backend ort` runs the same graph"
NEWEST_OPSET = "TensorRT 10.3 parses up to opset 20; docs/tensorrt.md lists what it does not take"


def build(library: Library, graph: bytes, key: EngineKey, timings: bytes = b"") -> Built:
    """Build the engine of a graph.

    Args:
        library: TensorRT.
        graph: ONNX, batch first and dynamic.
        key: profile, workspace and flags.
        timings: of kernels, from an earlier build on this device. Unsuitable ones are ignored, and all of them if the
            library has no timings.

    Raises:
        GraphRefused: the parser refuses the graph, or a dimension other than the batch is dynamic.
        EngineFault: the builder does not start, or builds no engine.
        OutOfMemory: TensorRT names memory as the reason.

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
        raise library.fault(f"{library.edition.title} accepts no batches of {key.profile.most}", UNEXPECTED)
    cache = _timing_cache(config, timings) if library.edition.times_kernels else None
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise library.fault(f"{library.edition.title} builds no engine", OTHERWISE)
    return Built(bytes(memoryview(engine)), bytes(memoryview(cache.serialize())) if cache else b"")


def _parse(library: Library, network: Network, graph: bytes) -> None:
    parser = library.module.OnnxParser(network, library.listener)
    if not parser.parse(graph):
        errors = [_in_words(parser.get_error(index)) for index in range(parser.num_errors)]
        said = "; ".join([*errors, library.said()])
        raise GraphRefused(f"{library.edition.title}'s parser refuses the graph: {said}", hint=NEWEST_OPSET)


def _in_words(error: ParserError) -> str:
    """Return the parser's error and its node: some descriptions are just 'false'."""
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
                f"input {tensor.name} has shape {[batch, *row]}", hint="only the batch, its first axis, may be dynamic"
            )
        least, usual, most = ((n, *row) for n in (batches.least, batches.usual, batches.most))
        profile.set_shape(tensor.name, least, usual, most)
    return profile


def _timing_cache(config: BuilderConfig, timings: bytes) -> TimingCache | None:
    """Attach earlier timings to a build, or none if TensorRT refuses them. The cache must outlive the build."""
    for data in dict.fromkeys((timings, b"")):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
        log.info("TensorRT cannot use the timings of an earlier build and measures again")
    return None
