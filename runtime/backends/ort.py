"""ONNX Runtime as a Session: it runs the artifact's graph and the gradient graph."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from runtime.backends.batching import on_gpu
from runtime.backends.binding import GRAPH, NO_GRAPH, Bound
from runtime.backends.loading import load
from runtime.backends.plugins import provider_named
from runtime.backends.providers import PROVIDERS, check_tf32, is_memory, load_onnxruntime, options_of
from runtime.errors import BadModel, EngineFault, OutOfMemory, first_line
from runtime.files import sha256
from runtime.graph.facts import differentiates_itself, graph_facts
from runtime.machine.card import cores
from runtime.machine.workers import run_side_by_side
from runtime.session import FORWARD_OUTPUTS, GRADIENT_OUTPUTS, INPUT, Batching, Session, SessionCard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.session import LossSpec

PIECE = 16
"""Rows of a batch that a worker runs at once. More are no faster per image, and no longer fit into a core's cache."""


class OrtSession(Session):
    """A classifier that ONNX Runtime runs.

    Args:
        forward: ONNX graph from `input` float32 [B, C, H, W] to `logits` float32 [B, K].
        gradient: ONNX graph from `input` and the fields of LossSpec that it needs, by name, to `logits`, `value` and
            `gradient`. None: only attacks without gradients can run.
        precision: the graph's name in the bundle, for the card. What the graph computes in follows from its bytes.
        provider: a key of PROVIDERS, or plugin:NAME. There is no fallback.
        state: the directory in which the TensorRT provider keeps its engines; None for the user's cache.
        tf32: let a GPU round the factors of float32 products to TF32.
        threads: per operator, each on the whole batch. 0 on the CPU: the batch is cut into pieces that run side by
            side, one per core and each on one thread, which is faster for many images because no operator waits for
            its threads. 0 on other providers: ONNX Runtime decides.
        optimised: let ONNX Runtime fuse and reorder operations.

    Raises:
        BadModel: ONNX Runtime cannot load a graph, or the graph has other inputs or outputs.
        MissingEnvironment: ONNX Runtime or the provider is missing, or does not work.

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
        kind = provider_named(provider)
        check_tf32(provider, tf32)
        options, self._gpu = options_of(kind, state, tf32)
        threads, workers = (1, cores()) if kind.is_default and threads == 0 else (threads, 1)
        try:
            facts = graph_facts(forward)
        except BadModel as error:
            raise BadModel(f"the forward graph cannot be loaded: {error.message}", hint=error.hint) from None
        opening = partial(load, kind=kind, options=options, threads=threads, optimised=optimised, facts=facts)
        loaded = opening("forward graph", forward)
        graph = partial(_Graph, workers=workers, singly=facts.ranges_of_batch, on_gpu=kind.on_gpu)
        self._forward = graph("forward graph", *loaded, {INPUT}, FORWARD_OUTPUTS)
        self._gradient = None
        if gradient is not None:
            loaded = opening("gradient graph", gradient)
            self._gradient = graph("gradient graph", *loaded, {INPUT, "label"}, GRADIENT_OUTPUTS)
        self._plain = partial(OrtSession, forward, None, precision=precision, threads=threads, optimised=False)
        self._card = SessionCard(
            sha256(forward),
            precision,
            "ort",
            provider,
            device=self._gpu.name if self._gpu else kind.plugin.called if kind.plugin else "cpu",
            library_sha256=kind.plugin.library_sha256 if kind.plugin else None,
            gradient_sha256=sha256(gradient) if gradient is not None else None,
            differentiable=gradient is not None,
            tf32=tf32,
            rounds_apart=not kind.is_default,
            written_out=gradient is not None and not differentiates_itself(gradient, forward),
            facts=facts,
        )

    def logits(self, x: Any) -> Any:
        """Return the logits of the artifact: float32 [B, K].

        Raises:
            BadModel: the graph does not take this shape, or fails.
            OutOfMemory: the batch does not fit into memory.

        """
        (z,) = self._forward.run({INPUT: x}, FORWARD_OUTPUTS)
        return z

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return (logits, value, gradient) of the gradient graph.

        Raises:
            BadModel: there is no gradient graph, it does not take this shape, or fails.
            OutOfMemory: the batch does not fit into memory.

        """
        if self._gradient is None:
            raise BadModel("this precision has no gradient graph", hint="--gradient none attacks it with Square alone")
        feeds = {INPUT: x, **vars(loss)}
        z, value, gradient = self._gradient.run(feeds, GRADIENT_OUTPUTS)
        return z, value, gradient

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return the batches that suit it, for images of the shape [C, H, W]."""
        if self._card.facts.ranges_of_batch:
            return Batching()
        return on_gpu(self._gpu.memory, image) if self._gpu else Batching(full=self._card.library_sha256 is not None)

    def unoptimised(self) -> Callable[[], Session] | None:
        """Return a function that opens the forward graph without optimisations; None on a provider that compiles it."""
        return None if self._card.rounds_apart else self._plain

    def card(self) -> SessionCard:
        """Return the artifact's digest, precision, backend, provider and device."""
        return self._card

    def confirm(self) -> None:
        """Compare the CUDA graphs that were replayed since the last call with plain runs.

        Raises:
            BadModel: see `Bound.hold`.

        """
        for graph in (self._forward, self._gradient):
            if graph is not None:
                graph.confirm()

    def close(self) -> None:
        """Release ONNX Runtime's sessions, with their memory and threads."""
        for graph in (self._forward, self._gradient):
            if graph is not None:
                graph.close()


class _Graph:
    """One ONNX graph, whose inputs and outputs are named. `singly`: each image runs alone.

    On a GPU, inputs and outputs stay there; so do arrays of libraries other than NumPy.
    """

    def __init__(
        self,
        role: str,
        session: Any,
        captures: bool,
        inputs: set[str],
        outputs: tuple[str, ...],
        *,
        workers: int,
        singly: bool,
        on_gpu: bool,
    ) -> None:
        self.role = role
        self._bound = Bound(role, session, "cuda", captures=captures) if on_gpu and not singly else None
        self._workers = workers
        self._singly = singly
        self._options: Any = None
        self._pool = ThreadPoolExecutor(workers)
        self._session = session
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        missing = (inputs - self._inputs) | (set(outputs) - {entry.name for entry in self._session.get_outputs()})
        if missing:
            raise BadModel(
                f"the {role} has no {', '.join(sorted(missing))}",
                hint="a bundle's graphs have fixed names for inputs and outputs",
            )

    def run(self, feeds: dict[str, Any], outputs: tuple[str, ...]) -> list[Any]:
        """Run the graph on those of `feeds` that it has as inputs, in float32; return the named outputs."""
        if self._session is None:
            raise EngineFault("this session is closed", hint="open it again")
        wanted = {name: array for name, array in feeds.items() if name in self._inputs}
        if self._bound is None or is_numpy_array(feeds[INPUT]):
            wanted = {name: np.ascontiguousarray(array, np.float32) for name, array in wanted.items()}
        return [_beside(feeds[INPUT], array) for array in self._pieces(wanted, outputs)]

    def _pieces(self, wanted: dict[str, Any], outputs: tuple[str, ...]) -> list[Any]:
        try:
            cuts = cut(len(wanted[INPUT]), self._workers, singly=self._singly)
            pieces = [{name: array[rows] for name, array in wanted.items()} for rows in cuts]
            if len(pieces) == 1:
                return self._run(outputs, pieces[0])
            parts = run_side_by_side(self._pool, partial(self._run, outputs), pieces)
        except BadModel:
            raise
        except Exception as error:  # ONNX Runtime's own errors share no base but this one
            if is_memory(error):
                rows, self._options = len(wanted[INPUT]), _sparing(self._session)
                if self._bound:
                    self._bound.let_go()
                raise OutOfMemory(
                    f"the {self.role} does not fit in memory with batches of {rows}", hint="choose a smaller --batch"
                ) from None
            raise BadModel(f"the {self.role} failed: {first_line(error)}", hint=_shapes(wanted)) from None
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def confirm(self) -> None:
        """Compare replays with plain runs; see `Bound.hold`."""
        if self._bound:
            self._bound.hold()

    def close(self) -> None:
        """Release ONNX Runtime's session and the threads."""
        self._pool.shutdown()
        self._session = self._bound = None

    def _run(self, outputs: tuple[str, ...], feeds: dict[str, Any]) -> list[Any]:
        if self._bound:
            return self._bound.run(outputs, feeds, self._options)
        results: list[Any] = self._session.run(list(outputs), feeds, self._options)
        return results


def _beside(like: Any, array: Any) -> Any:
    """Return an array as one of `like`'s library."""
    return array_namespace(like).from_dlpack(array) if is_numpy_array(array) and not is_numpy_array(like) else array


def cut(n: int, workers: int, *, singly: bool = False) -> list[slice]:
    """Return n rows cut into equal pieces for workers that run side by side, each of at most PIECE rows.

    The number of pieces is a multiple of `workers`. A single worker gets all rows in one piece. `singly`: one row each.
    """
    if singly:
        return [slice(row, row + 1) for row in range(n)]
    if workers == 1 or n <= 1:
        return [slice(0, n)]
    rounds = -(-n // (PIECE * workers))
    size = -(-n // (rounds * workers))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _sparing(session: Any) -> Any:
    """Return run options that free memory when the run ends; by default, ONNX Runtime keeps all that it allocated."""
    options = load_onnxruntime().RunOptions()
    on_gpu = session.get_providers()[0] in {kind.name for kind in PROVIDERS.values() if kind.on_gpu}
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:0" if on_gpu else "cpu:0")
    if on_gpu:
        options.add_run_config_entry(GRAPH, str(NO_GRAPH))
    return options


def _shapes(feeds: dict[str, Any]) -> str:
    return "its inputs were " + ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
