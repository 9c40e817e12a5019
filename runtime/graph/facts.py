"""What a graph says of itself: whether it is quantised, what it computes in, and where it is a staircase.

It decides how hard an artifact is attacked, so it is read from the bytes that the engine gets, and no name counts. Read
without the onnx package, along the fields of onnx.proto (`NUMBERS`), into branches, loops and functions. In doubt an
operation counts: what it costs is Square.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from runtime.errors import BadModel
from runtime.graph.wire import DEEPEST, WORD, fields_of
from runtime.session import GraphFacts

if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBERS: dict[str, dict[str, int]] = {
    "ModelProto": {"graph": 7, "functions": 25},
    "FunctionProto": {"name": 1, "input": 4, "output": 5, "node": 7, "domain": 10},
    "GraphProto": {"node": 1, "initializer": 5, "input": 11, "output": 12, "sparse_initializer": 15},
    "NodeProto": {"input": 1, "output": 2, "name": 3, "op_type": 4, "attribute": 5, "domain": 7},
    "AttributeProto": {"name": 1, "i": 3, "t": 5, "g": 6, "tensors": 10, "graphs": 11},
    "SparseTensorProto": {"values": 1},
    "TensorProto": {"dims": 1, "data_type": 2},
    "ValueInfoProto": {"name": 1},
}
"""The fields of onnx.proto that are read, by message and name."""

STAIRCASES = frozenset(
    {
        *("Round", "Floor", "Ceil", "Sign", "Mod", "Shrink", "IsInf", "IsNaN"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("ArgMax", "ArgMin", "Hardmax", "OneHot", "TopK", "NonMaxSuppression", "NonZero", "Unique"),
    }
)
"""Operations that answer in steps, or choose. A Cast does where it leaves the floating-point numbers."""
CLASSICAL = "ai.onnx.ml"
"""The domain of trees, thresholds and look-ups."""
OF_SHAPES = frozenset({"Shape", "Size"})
"""Operations whose answer no number of the image changes."""
QUANTISING = re.compile(r"Q[A-Z]|.*([Qq]uantiz|Integer|NBits|Bnb4|FpQ4)")
"""How operations are called that quantise or compute in integers, in onnx's and ONNX Runtime's own domains."""
OF_BATCH = "DynamicQuantize"
"""How operations begin that quantise by the range of all that they are given, the whole batch."""
BYTE = 2
"""TensorProto.DataType.UINT8"""
TO_BYTES = ("Mul", "Round", "Cast")
"""What `pack` puts before a model that takes bytes."""
REALS = {16: "bfloat16", 10: "float16", 1: "float32", 11: "float64"}
"""TensorProto.DataType of what computes in floating point, the narrowest first; what is narrower yet is quantised."""


class Step(NamedTuple):
    """A node, or a way that values take in or out of a graph inside one.

    Args:
        operator: empty where it is such a way.
        domain: of the operator.
        name: of the node.
        inputs: names of values.
        outputs: likewise.
        to: of a Cast, its TensorProto.DataType.

    """

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    to: int | None = None

    @property
    def is_of_shapes(self) -> bool:
        """Whether it answers the same for every image."""
        return self.operator in OF_SHAPES and self.domain in ("", "ai.onnx")

    @property
    def is_staircase(self) -> bool:
        """Whether it answers in steps."""
        if self.operator in ("Cast", "CastLike"):
            return self.to not in REALS
        if self.operator == "MaxPool" and len(self.outputs) > 1:
            return True  # the second says where the largest lies
        return self.operator in STAIRCASES or self.domain == CLASSICAL


def graph_facts(graph: bytes) -> GraphFacts:
    """Return what an ONNX graph says of itself.

    Args:
        graph: a serialised ModelProto.

    Raises:
        BadModel: it is none.

    """
    found = _read(graph)
    return GraphFacts(
        quantised=any(QUANTISING.match(step.operator) for step in found.steps),
        computes_in=next((name for kind, name in REALS.items() if kind in found.kinds), "float32"),
        staircases=tuple(sorted({step.operator for step in _on_the_way(found) if step.is_staircase})),
        takes_bytes=_takes_bytes(found),
        ranges_of_batch=any(step.operator.startswith(OF_BATCH) for step in found.steps),
    )


def differentiates_itself(gradient: bytes, forward: bytes) -> bool:
    """Return whether a gradient graph holds every step of a forward graph, and so computes its logits alike.

    It does not where steps without a rule were written out in others first: those answer the same but for rounding.

    Raises:
        BadModel: one is no ONNX graph.

    """
    return set(_read(forward).steps) <= set(_read(gradient).steps)


def staircases(graph: bytes) -> tuple[str, ...]:
    """Return the nodes that are staircases between image and logits, in the order of the graph, as 'Round /act/Round'.

    Raises:
        BadModel: it is no ONNX graph.

    """
    nodes = (step for step in _on_the_way(_read(graph)) if step.is_staircase)
    return tuple(f"{node.operator} {node.name or ','.join(node.outputs)}" for node in nodes)


def _takes_bytes(found: _Found) -> bool:
    """Whether nothing else is read of the one input than what `TO_BYTES` makes of it."""
    values, step = tuple(found.inputs), None
    for operator in TO_BYTES:
        readers = [each for each in found.steps if set(values) & set(each.inputs)]
        if len(values) != 1 or [each.operator for each in readers] != [operator]:
            return False
        (step,) = readers
        values = step.outputs
    return step is not None and step.to == BYTE


def _on_the_way(found: _Found) -> list[Step]:
    """Return the steps that lead from the inputs' numbers to the outputs."""
    forth = _reached(found.inputs, ((step.inputs, step.outputs) for step in found.steps if not step.is_of_shapes))
    back = _reached(found.outputs, ((step.outputs, step.inputs) for step in found.steps if not step.is_of_shapes))
    return [step for step in found.steps if forth.intersection(step.inputs) and back.intersection(step.outputs)]


def _reached(start: Iterable[str], ways: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> set[str]:
    """Return all values that ways, from any value of the first to each of the second, lead to."""
    onward: dict[str, list[tuple[str, ...]]] = {}
    for first, second in ways:
        for name in first:
            onward.setdefault(name, []).append(second)
    reached, waiting = set(start), list(start)
    while waiting:
        for names in onward.pop(waiting.pop(), ()):
            waiting += set(names) - reached
            reached.update(names)
    return reached


class _Found:
    """What a walk over a model comes by. Names of a function's values begin with the function's own."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.kinds: set[int] = set()
        self._functions: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def model(self, data: memoryview) -> None:
        of = NUMBERS["ModelProto"]
        for field, value in fields_of(data):
            if isinstance(value, int):
                continue
            if field == of["graph"]:
                inputs, outputs = self.graph(value, "", DEEPEST)
                self.inputs += inputs
                self.outputs += outputs
            elif field == of["functions"]:
                self.function(value)
        for step in tuple(self.steps):
            inputs, outputs = self._functions.get((step.domain, step.operator), ((), ()))
            self.way(step.inputs, inputs)
            self.way(outputs, step.outputs)

    def way(self, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        if first and second:
            self.steps.append(Step("", "", "", first, second))

    def function(self, data: memoryview) -> None:
        of = NUMBERS["FunctionProto"]
        texts = _texts(data)
        domain, name = (_last(texts.get(of[key])) for key in ("domain", "name"))
        prefix = f"{domain}/{name}/"
        self._functions[domain, name] = (
            _named(prefix, texts.get(of["input"])),
            _named(prefix, texts.get(of["output"])),
        )
        for node in texts.get(of["node"], ()):
            self.node(node, prefix, DEEPEST)

    def graph(self, data: memoryview, prefix: str, depth: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Walk over a graph, and return the names of its inputs and outputs."""
        if not depth:
            raise ValueError("graphs nest too deeply")
        of, texts = NUMBERS["GraphProto"], _texts(data)
        for node in texts.get(of["node"], ()):
            self.node(node, prefix, depth)
        for tensor in texts.get(of["initializer"], ()):
            self.tensor(tensor)
        for sparse in texts.get(of["sparse_initializer"], ()):
            for values in _texts(sparse).get(NUMBERS["SparseTensorProto"]["values"], ()):
                self.tensor(values)
        name = NUMBERS["ValueInfoProto"]["name"]
        inputs, outputs = (
            _named(prefix, [_texts(value).get(name, [memoryview(b"")])[-1] for value in texts.get(of[key], ())])
            for key in ("input", "output")
        )
        return inputs, outputs

    def node(self, data: memoryview, prefix: str, depth: int) -> None:
        of, texts, to = NUMBERS["NodeProto"], _texts(data), None
        inputs, outputs = (_named(prefix, texts.get(of[key])) for key in ("input", "output"))
        for attribute in texts.get(of["attribute"], ()):
            to = self.attribute(attribute, prefix, depth, inputs, outputs, to)
        if to in REALS:
            self.kinds.add(to)
        operator, domain, name = (_last(texts.get(of[key])) for key in ("op_type", "domain", "name"))
        self.steps.append(Step(operator, domain, name, inputs, outputs, to))

    def attribute(
        self,
        data: memoryview,
        prefix: str,
        depth: int,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        to: int | None,
    ) -> int | None:
        """Walk into what an attribute holds; return the type that it casts to, by default `to`."""
        of, texts = NUMBERS["AttributeProto"], _texts(data)
        for key in ("t", "tensors"):
            for tensor in texts.get(of[key], ()):
                self.tensor(tensor)
        for key in ("g", "graphs"):
            for graph in texts.get(of[key], ()):
                inner, given = self.graph(graph, prefix, depth - 1)
                self.way(inputs, inner)
                self.way(given, outputs)
        return _number(data, of["i"]) if _last(texts.get(of["name"])) == "to" else to

    def tensor(self, data: memoryview) -> None:
        kind = _number(data, NUMBERS["TensorProto"]["data_type"])
        if kind is not None:
            self.kinds.add(kind)


def _read(graph: bytes) -> _Found:
    found = _Found()
    try:
        found.model(memoryview(graph))
    except (IndexError, ValueError) as error:
        raise BadModel(f"this is no ONNX graph: {error}", hint="export it again") from None
    return found


def _texts(data: memoryview) -> dict[int, list[memoryview]]:
    """Return the fields of a message that hold bytes, each with all that it holds."""
    held: dict[int, list[memoryview]] = {}
    for field, value in fields_of(data):
        if not isinstance(value, int):
            held.setdefault(field, []).append(value)
    return held


def _number(data: memoryview, wanted: int) -> int | None:
    """Return a field that holds a number, None where there is none; the last counts, as for parsers."""
    numbers = [value for field, value in fields_of(data) if isinstance(value, int) and field == wanted]
    return numbers[-1] & WORD if numbers else None


def _last(texts: list[memoryview] | None) -> str:
    """Return a field that holds one text: the last counts, as for parsers."""
    return bytes(texts[-1]).decode(errors="replace") if texts else ""


def _named(prefix: str, texts: list[memoryview] | None) -> tuple[str, ...]:
    """Return the names of values; none has the empty one."""
    return tuple(prefix + bytes(text).decode(errors="replace") for text in texts or () if len(text))
