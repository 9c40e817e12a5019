"""ONNX Runtime behind the Session protocol: the artifact's graph, and the graph of its input gradient."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.backends.providers import FATAL, PROVIDERS, check_tf32, find, left_out, load_onnxruntime, options_of
from runtime.errors import BadModel, EngineFault, MissingEnvironment, OutOfMemory, first_line
from runtime.files import sha256
from runtime.graph.facts import differentiates_itself, graph_facts
from runtime.machine.card import cores
from runtime.session import FORWARD_OUTPUTS, GRADIENT_OUTPUTS, INPUT, Session, SessionCard
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.backends.providers import Provider
    from runtime.session import GraphFacts, LossSpec

PIECE = 16
"""Rows of a batch that a worker runs at once. More are no faster an image, and no longer fit a core's cache."""
SAME_AS_REQUESTED = 1
"""ONNX Runtime's kSameAsRequested."""
NO_MEMORY = re.compile(
    "bad_alloc|failed to allocate memory|out of memory|ALLOC_FAILED|can't start new thread", re.IGNORECASE
)
"""What ONNX Runtime and CUDA say, in an error of no type of its own, where memory ran out."""


class OrtSession(Session):
    """A classifier run by ONNX Runtime.

    Args:
        forward: ONNX graph, `input` float32 [B, C, H, W] to `logits` float32 [B, K].
        gradient: ONNX graph with `input` and those fields of LossSpec that it needs, by name,
            to `logits`, `value`, `gradient`. None: only attacks without gradients run.
        precision: what the graph is called, for the card; what it is, its bytes say.
        provider: a key of PROVIDERS. Never another one in its place.
        state: directory below which the TensorRT provider keeps its engines; None for the user's cache.
        tf32: let a GPU round the factors of float32 products to TF32.
        threads: of one operator, on the whole batch. 0, on the CPU: a batch is cut into pieces that run side by side,
            one a core, with one thread each: many images are done sooner so than by operators that wait for all
            their threads; on other providers ONNX Runtime decides.
        optimised: let ONNX Runtime fuse and reorder what the graphs say.

    Raises:
        BadModel: a graph that ONNX Runtime cannot load, or with other inputs and outputs.
        MissingEnvironment: ONNX Runtime or the provider is not there, or does not work.

    """

    def __init__(
        self,
        forward: bytes,
        gradient: bytes | None,
        *,
        precision: str,
        provider: str = "cpu",
        state: Path | None = None,
        tf32: bool = False,
        threads: int = 0,
        optimised: bool = True,
    ) -> None:
        kind = PROVIDERS[provider]
        check_tf32(provider, tf32)
        options, device = options_of(kind, state, tf32)
        threads, workers = (1, cores()) if not kind.on_gpu and threads == 0 else (threads, 1)
        try:
            facts = graph_facts(forward)
        except BadModel as error:
            raise BadModel(f"the forward graph cannot be loaded: {error.message}", hint=error.hint) from None
        opening = partial(_load, kind=kind, options=options, threads=threads, optimised=optimised, facts=facts)
        loaded = opening("forward graph", forward)
        graph = partial(_Graph, workers=workers, singly=facts.ranges_of_batch)
        self._forward = graph("forward graph", loaded, {INPUT}, FORWARD_OUTPUTS)
        self._gradient = None
        if gradient is not None:
            loaded = opening("gradient graph", gradient)
            self._gradient = graph("gradient graph", loaded, {INPUT, "label"}, GRADIENT_OUTPUTS)
        self._plain = partial(OrtSession, forward, None, precision=precision, threads=threads, optimised=False)
        self._card = SessionCard(
            sha256(forward),
            precision,
            "ort",
            provider,
            device=device,
            gradient_sha256=sha256(gradient) if gradient is not None else None,
            differentiable=gradient is not None,
            tf32=tf32,
            rounds_apart=kind.on_gpu,
            written_out=gradient is not None and not differentiates_itself(gradient, forward),
            facts=facts,
        )

    def logits(self, x: Any) -> Any:
        """Return the logits of the artifact: float32 [B, K].

        Raises:
            BadModel: the graph does not take this shape, or fails.
            OutOfMemory: so many images do not fit.

        """
        (z,) = self._forward.run({INPUT: x}, FORWARD_OUTPUTS)
        return z

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return (logits, value, gradient) of the gradient graph.

        Raises:
            BadModel: there is no gradient graph, it does not take this shape, or fails.
            OutOfMemory: so many images do not fit.

        """
        if self._gradient is None:
            raise BadModel("this precision has no gradient graph", hint="--gradient none attacks it by Square alone")
        feeds = {INPUT: x, **vars(loss)}
        z, value, gradient = self._gradient.run(feeds, GRADIENT_OUTPUTS)
        return z, value, gradient

    def unoptimised(self) -> Callable[[], Session] | None:
        """Return what opens the forward graph as it is written; None on a provider that compiles it anyway."""
        return None if self._card.rounds_apart else self._plain

    def card(self) -> SessionCard:
        """Return the artifact's digest, precision, backend, provider and device."""
        return self._card

    def close(self) -> None:
        """Let go of ONNX Runtime's sessions, their memory and threads."""
        for graph in (self._forward, self._gradient):
            if graph is not None:
                graph.close()


class _Graph:
    """One ONNX graph, its inputs and outputs by name; `singly`: every image is run by itself."""

    def __init__(
        self, role: str, session: Any, inputs: set[str], outputs: tuple[str, ...], *, workers: int, singly: bool
    ) -> None:
        self.role = role
        self._workers = workers
        self._singly = singly
        self._options: Any = None
        self._pool = ThreadPoolExecutor(workers)
        self._session = session
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        missing = (inputs - self._inputs) | (set(outputs) - {entry.name for entry in self._session.get_outputs()})
        if missing:
            raise BadModel(f"the {role} has no {', '.join(sorted(missing))}", hint="inputs and outputs go by name")

    def run(self, feeds: dict[str, Any], outputs: tuple[str, ...]) -> list[Any]:
        """Feed what the graph asks for, as float32, and return the outputs named."""
        if self._session is None:
            raise EngineFault("this session is closed", hint="open it again")
        wanted = {
            name: np.ascontiguousarray(array, np.float32) for name, array in feeds.items() if name in self._inputs
        }
        try:
            cuts = cut(len(wanted[INPUT]), self._workers, singly=self._singly)
            pieces = [{name: array[rows] for name, array in wanted.items()} for rows in cuts]
            if len(pieces) == 1:
                return self._run(outputs, pieces[0])
            parts = self._side_by_side(outputs, pieces)
        except Exception as error:  # ONNX Runtime's own errors share no base but this one
            if _is_memory(error):
                rows, self._options = len(wanted[INPUT]), _sparing(self._session)
                raise OutOfMemory(
                    f"the {self.role} does not fit the memory with {rows} images at a time", hint="a smaller --batch"
                ) from None
            raise BadModel(f"the {self.role} failed: {first_line(error)}", hint=_shapes(wanted)) from None
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def close(self) -> None:
        """Let go of ONNX Runtime's session and the threads."""
        self._pool.shutdown()
        self._session = None

    def _side_by_side(self, outputs: tuple[str, ...], pieces: list[dict[str, Any]]) -> list[list[Any]]:
        """Run the pieces; where one fails, leave none running: it would hold the memory that a smaller batch needs."""
        runs: list[Future[list[Any]]] = []
        try:
            for piece in pieces:
                runs.append(self._pool.submit(self._run, outputs, piece))  # one may find no thread
            return [run.result() for run in runs]
        finally:
            for run in runs:
                run.cancel()
            wait(runs)
            runs.clear()  # an error's traceback holds this frame, and so what the others found

    def _run(self, outputs: tuple[str, ...], feeds: dict[str, Any]) -> list[Any]:
        results: list[Any] = self._session.run(list(outputs), feeds, self._options)
        return results


def cut(n: int, workers: int, *, singly: bool = False) -> list[slice]:
    """Return equal pieces of n rows, at most PIECE each where there are workers to run them side by side.

    As many as there are workers, or a multiple of it; all rows in one piece for a single worker. `singly`: a row each.
    """
    if singly:
        return [slice(row, row + 1) for row in range(n)]
    if workers == 1 or n <= 1:
        return [slice(0, n)]
    rounds = -(-n // (PIECE * workers))
    size = -(-n // (rounds * workers))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _load(
    role: str,
    graph: bytes,
    *,
    kind: Provider,
    options: Callable[[str], dict[str, str]],
    threads: int,
    optimised: bool,
    facts: GraphFacts,
) -> Any:
    runtime = load_onnxruntime()
    find(runtime, kind)
    chosen, settings = options(sha256(graph)), runtime.SessionOptions()
    settings.log_severity_level = FATAL
    settings.intra_op_num_threads = threads
    settings.use_deterministic_compute = True
    if not optimised:
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    if kind.on_gpu:  # else single nodes that the provider does not take would run on the CPU without a word
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    else:
        _share_arena()
        settings.add_session_config_entry("session.use_env_allocators", "1")
    opening = partial(runtime.InferenceSession, graph, settings, providers=[(kind.name, chosen)])
    try:  # its own fall-back would print to stdout and try again
        session = opening(disabled_optimizers=left_out(facts, on_gpu=kind.on_gpu), enable_fallback=0)
    except Exception as error:  # as above
        if _is_memory(error):
            raise OutOfMemory(
                f"the {role} does not fit the memory: {first_line(error)}", hint="end what else uses it"
            ) from None
        if kind.on_gpu:
            raise MissingEnvironment(
                f"{kind.name} does not take the {role}: {first_line(error)}",
                hint="check CUDA, cuDNN and TensorRT; --backend tensorrt or --provider cpu may take it",
            ) from None
        raise BadModel(f"the {role} cannot be loaded: {first_line(error)}", hint="export it again") from None
    if session.get_providers()[0] != kind.name:
        raise MissingEnvironment(f"{kind.name} does not work here", hint="check the GPU's driver, CUDA and cuDNN")
    log.debug(f"{role} {sha256(graph)[:12]}: {kind.name}, {threads or 'all'} threads")
    return session


@cache
def _share_arena() -> None:
    """Let the sessions on the CPU draw from one arena, which grows by what is asked for and can be emptied.

    An arena of ONNX Runtime's own grows by powers of two, and never gives its first region back: what the forward
    graph was done with would stay out of the gradient graph's reach. Sessions opened later use its memory again, but
    closing one gives none back to the system.
    """
    runtime = load_onnxruntime()
    memory = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    with suppress(RuntimeError):  # another user of ONNX Runtime in this process was first: its arena is shared then
        runtime.create_and_register_allocator(memory, runtime.OrtArenaCfg({"arena_extend_strategy": SAME_AS_REQUESTED}))


def _sparing(session: Any) -> Any:
    """Return the options of a run that gives memory back when it ends; without them ONNX Runtime keeps all it had."""
    options = load_onnxruntime().RunOptions()
    on_gpu = session.get_providers()[0] != PROVIDERS["cpu"].name
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:0" if on_gpu else "cpu:0")
    return options


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


def _shapes(feeds: dict[str, Any]) -> str:
    return "it was fed " + ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
