"""Opens a graph in ONNX Runtime, entirely on the requested provider or not at all."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from runtime.backends.providers import CAPTURES, FATAL, find, is_memory, left_out, load_onnxruntime
from runtime.errors import BadModel, MissingEnvironment, OutOfMemory, first_line
from runtime.files import sha256
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.backends.providers import Provider
    from runtime.session import GraphFacts

SAME_AS_REQUESTED = 1
"""ONNX Runtime's kSameAsRequested."""


def load(
    role: str,
    graph: bytes,
    *,
    kind: Provider,
    options: Callable[[str], dict[str, str]],
    threads: int,
    optimised: bool,
    facts: GraphFacts,
) -> tuple[Any, bool]:
    """Return ONNX Runtime's session of a graph, and whether it can capture CUDA graphs.

    Args:
        role: the graph's name in messages.
        graph: the bytes of an ONNX file.
        kind: the provider.
        options: from the graph's digest to the provider's options.
        threads: per operator; 0 lets ONNX Runtime decide.
        optimised: let ONNX Runtime fuse and reorder operations.
        facts: of the forward graph.

    Raises:
        BadModel: ONNX Runtime cannot load the graph.
        MissingEnvironment: the provider does not work here, or cannot run the whole graph.
        OutOfMemory: the graph does not fit into memory.

    """
    runtime = load_onnxruntime()
    if kind.plugin is None:
        find(runtime, kind)
    chosen, settings = options(sha256(graph)), runtime.SessionOptions()
    settings.log_severity_level = FATAL
    settings.intra_op_num_threads = threads
    settings.use_deterministic_compute = True
    if not optimised:
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    if not kind.is_default:  # else nodes that the provider cannot run would silently run on the CPU
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    else:
        share_arena()
        settings.add_session_config_entry("session.use_env_allocators", "1")
    without = left_out(
        facts, on_gpu=not kind.is_default
    )  # its own fallback, which would print to stdout and try again, is off too
    opening = partial(runtime.InferenceSession, graph, settings, disabled_optimizers=without, enable_fallback=0)
    try:
        if kind.plugin:
            settings.add_provider_for_devices([kind.plugin.device], kind.plugin.options)
            session, captures = opening(), False
        else:
            captures = kind.captures and not facts.ranges_of_batch
            session, captures = _opened(role, opening, kind.name, chosen, captures=captures)
    except Exception as error:  # ONNX Runtime's own errors share no base but this one
        if is_memory(error):
            raise OutOfMemory(
                f"the {role} does not fit in memory: {first_line(error)}", hint="stop other programs that use it"
            ) from None
        if kind.on_gpu:
            raise MissingEnvironment(
                f"{kind.name} cannot run the {role}: {first_line(error)}",
                hint="check CUDA, cuDNN and TensorRT, or try --backend tensorrt or --provider cpu",
            ) from None
        if kind.plugin:
            raise MissingEnvironment(
                f"{kind.name} cannot run the whole {role}: {first_line(error)}",
                hint="no node may fall back to the CPU; try another --provider",
            ) from None
        raise BadModel(f"the {role} cannot be loaded: {first_line(error)}", hint="export it again") from None
    if session.get_providers()[0] != kind.name:
        raise MissingEnvironment(f"{kind.name} does not work here", hint="check the device's driver and libraries")
    log.debug(f"{role} {sha256(graph)[:12]}: {kind.name}, {threads or 'all'} threads")
    return session, captures


def _opened(
    role: str, opening: Callable[..., Any], provider: str, options: dict[str, str], *, captures: bool
) -> tuple[Any, bool]:
    """Open a session that can capture CUDA graphs if `captures`, or a plain one if that fails."""
    if captures:
        try:
            return opening(providers=[(provider, options | CAPTURES)]), True
        except Exception as error:
            if is_memory(error):
                raise
            reason = first_line(error)
    session = opening(providers=[(provider, options)])
    if captures:
        log.info(f"the {role} runs without CUDA graphs: {reason}")
    return session, False


@cache
def share_arena() -> None:
    """Let all sessions on the CPU share one memory arena, which grows only as needed and can be emptied.

    By default each session has its own arena, which grows by powers of two and never frees its first region. So the
    gradient graph could not use the memory that the forward graph no longer needs. Sessions opened later use the shared
    memory again, but closing a session returns none of it to the system.
    """
    runtime = load_onnxruntime()
    memory = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    with suppress(RuntimeError):  # other code in this process has registered an arena, which is then shared
        runtime.create_and_register_allocator(memory, runtime.OrtArenaCfg({"arena_extend_strategy": SAME_AS_REQUESTED}))
