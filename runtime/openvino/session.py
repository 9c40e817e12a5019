"""OpenVINO as a Session: it compiles the artifact's graph and the gradient graph for a device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from runtime.errors import BadModel, EngineFault, MissingEnvironment, OutOfMemory
from runtime.files import sha256
from runtime.graph.facts import graph_facts
from runtime.machine.card import cores
from runtime.machine.workers import run_side_by_side
from runtime.openvino.library import F32, NARROW, PROVIDERS, check_device, is_memory, load_core, said
from runtime.session import FORWARD_OUTPUTS, GRADIENT_OUTPUTS, INPUT, Batching, Session, SessionCard

if TYPE_CHECKING:
    from runtime.openvino.library import Provider
    from runtime.session import LossSpec

PIECE = 16
"""The most rows of a batch that a worker runs at once, on the CPU."""
TOLD = "runtimePrecision"
"""The key under which an operation of a compiled graph has the type in which it computes."""
REALS = ("f64", "f32", "f16", "bf16")
INTEGERS = ("i8", "u8", "i4", "u4")
"""Types of a compiled graph's operations that show how it computes; other types are of shapes and indices."""


class OvSession(Session):
    """A classifier that OpenVINO compiles. There is no model cache, so each session compiles anew.

    Args:
        forward: ONNX graph from `input` float32 [B, C, H, W] to `logits` float32 [B, K].
        gradient: ONNX graph from `input` and the fields of LossSpec that it needs, by name, to `logits`, `value` and
            `gradient`. It is computed in float32, and left out on a device with a fixed batch. None: there is none.
        precision: the graph's name in the bundle, for the card. What the graph computes in follows from its bytes.
        provider: a key of PROVIDERS. There is no fallback.

    Raises:
        BadModel: OpenVINO cannot compile a graph, or the graph has other inputs or outputs.
        MissingEnvironment: OpenVINO or the device is missing, or computes in a narrower type than requested.
        OutOfMemory: the memory is too small to compile a graph.

    """

    def __init__(self, forward: bytes, gradient: bytes | None, *, precision: str, provider: str = "cpu") -> None:
        kind, facts, core = PROVIDERS[provider], graph_facts(forward), load_core()
        device, singly = check_device(core, kind), facts.ranges_of_batch
        self._forward = _Compiled("forward graph", core, forward, kind, {INPUT}, FORWARD_OUTPUTS, singly=singly)
        reals = self._forward.types & {each.name for each in NARROW}
        computes_in = next((each.computes_in for each in NARROW if each.name in reals), F32.computes_in)
        self._gradient = None
        if gradient is not None and kind.any_batch:
            exact = replace(kind, arithmetic=F32)
            inputs = {INPUT, "label"}
            self._gradient = _Compiled("gradient graph", core, gradient, exact, inputs, GRADIENT_OUTPUTS, singly=singly)
        self._card = SessionCard(
            sha256(forward),
            precision,
            "openvino",
            provider,
            device=f"{device}, computing in {', '.join(sorted(self._forward.types))}",
            gradient_sha256=sha256(gradient) if gradient is not None and self._gradient else None,
            differentiable=self._gradient is not None,
            rounds_apart=True,
            facts=replace(facts, computes_in=computes_in),
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
            raise BadModel("this session runs no gradient graph", hint="--gradient-backend ort lends one")
        z, value, gradient = self._gradient.run({INPUT: x, **vars(loss)}, GRADIENT_OUTPUTS)
        return z, value, gradient

    def card(self) -> SessionCard:
        """Return the artifact's digest, precision, backend, provider, device and types."""
        return self._card

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return the batches that suit it: of few sizes, because it prepares kernels anew for each."""
        return Batching(full=not self._forward.singly)

    def close(self) -> None:
        """Release the compiled graphs, with their memory and threads."""
        for compiled in (self._forward, self._gradient):
            if compiled is not None:
                compiled.close()


class _Compiled:
    """A compiled graph. On the CPU, pieces of a batch run side by side, one per core.

    Attributes:
        types: the types in which it computes, as OpenVINO reports them.
        singly: whether each image runs alone.

    """

    def __init__(
        self,
        role: str,
        core: Any,
        graph: bytes,
        kind: Provider,
        inputs: set[str],
        outputs: tuple[str, ...],
        *,
        singly: bool,
    ) -> None:
        self.role = role
        self.singly = singly or not kind.any_batch
        self._requests: Any = None
        self._workers = cores() if kind.device == "CPU" else 1
        try:
            model = core.read_model(graph)
            if not kind.any_batch:
                model.reshape({port: [1, *list(port.get_partial_shape())[1:]] for port in model.inputs})
            self._model = core.compile_model(model, kind.device, self._properties(kind))
        except Exception as error:  # OpenVINO's own errors share no base but this one
            if is_memory(error):
                raise OutOfMemory(
                    f"the {role} does not fit in memory", hint="stop other programs that use it"
                ) from None
            raise BadModel(
                f"OpenVINO does not compile the {role}: {said(error)}", hint="--backend ort may take it"
            ) from None
        self._inputs = {name for port in self._model.inputs for name in port.get_names()}
        missing = (inputs - self._inputs) | (
            set(outputs) - {name for port in self._model.outputs for name in port.get_names()}
        )
        if missing:
            raise BadModel(
                f"the {role} has no {', '.join(sorted(missing))}",
                hint="a bundle's graphs have fixed names for inputs and outputs",
            )
        self.types = self._types(kind)
        self._pool = ThreadPoolExecutor(self._workers)
        self._renew()

    def run(self, feeds: dict[str, Any], outputs: tuple[str, ...]) -> list[Any]:
        """Run the graph on those of `feeds` that it has as inputs, in float32; return the named outputs."""
        if self._model is None:
            raise EngineFault("this session is closed", hint="open it again")
        like = feeds[INPUT]
        wanted = {name: np.ascontiguousarray(feeds[name], np.float32) for name in self._inputs if name in feeds}
        n = len(wanted[INPUT])
        size = 1 if self.singly else max(1, min(PIECE, -(-n // self._workers)) if self._workers > 1 else n)
        pieces = [{name: array[at : at + size] for name, array in wanted.items()} for at in range(0, max(n, 1), size)]
        try:
            infer = partial(self._infer, outputs)
            parts = [infer(pieces[0])] if len(pieces) == 1 else run_side_by_side(self._pool, infer, pieces)
        except Exception as error:  # OpenVINO's own errors share no base but this one
            if is_memory(error):
                self._renew()  # to free memory for a smaller batch
                raise OutOfMemory(
                    f"the {self.role} does not fit in memory with batches of {n}", hint="choose a smaller --batch"
                ) from None
            fed = ", ".join(f"{name} {list(array.shape)}" for name, array in wanted.items())
            raise BadModel(f"the {self.role} failed: {said(error)}", hint=f"it was fed {fed}") from None
        found = [arrays[0] if len(parts) == 1 else np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        return found if is_numpy_array(like) else [array_namespace(like).from_dlpack(array) for array in found]

    def close(self) -> None:
        """Release the compiled graph and the threads; a second call does nothing."""
        self._pool.shutdown()
        self._model = self._requests = None

    def _properties(self, kind: Provider) -> dict[str, Any]:
        """Return properties that keep OpenVINO from narrower types and from quantising what is not quantised."""
        asked = {"INFERENCE_PRECISION_HINT": kind.arithmetic.name, "EXECUTION_MODE_HINT": "ACCURACY"}
        if kind.device != "CPU":
            return asked
        return {
            **asked,
            "NUM_STREAMS": self._workers,
            "INFERENCE_NUM_THREADS": self._workers,
            "ENABLE_CPU_PINNING": False,
        }

    def _types(self, kind: Provider) -> frozenset[str]:
        """Return the types in which it computes; the requested type if OpenVINO does not report them.

        Raises:
            MissingEnvironment: one of them is narrower than the requested type.

        """
        try:
            steps = [step.get_rt_info() for step in self._model.get_runtime_model().get_ops()]
        except RuntimeError:  # a device need not report its types
            return frozenset({kind.arithmetic.name})
        told = {step[TOLD].astype(str) for step in steps if TOLD in step}
        unasked = told & {each.name for each in NARROW} - {kind.arithmetic.name}
        if unasked:
            raise MissingEnvironment(
                f"OpenVINO computes the {self.role} in {', '.join(sorted(unasked))}, not in {kind.arithmetic.name}",
                hint="choose another --provider, or install another version of OpenVINO",
            )
        return frozenset(told.intersection((*REALS, *INTEGERS))) or frozenset({kind.arithmetic.name})

    def _renew(self) -> None:
        """Drop all inference requests, which hold memory. Each worker makes a new one when it first runs."""
        self._requests = SimpleQueue()
        for _ in range(self._workers):
            self._requests.put(None)

    def _infer(self, outputs: tuple[str, ...], feeds: dict[str, Any]) -> list[Any]:
        request = self._requests.get()
        try:
            if request is None:
                request = self._model.create_infer_request()
            found = request.infer(feeds)
            return [np.array(found[name], np.float32) for name in outputs]
        finally:
            self._requests.put(request)
