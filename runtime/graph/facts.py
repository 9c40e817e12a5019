"""Facts about a graph: whether it is quantised, the type in which it computes, and its staircases.

They decide which attacks run, so they are read from the bytes that the engine gets, and do not depend on names. The
reader follows the fields of onnx.proto in `NUMBERS`, into branches, loops and functions, without the onnx package. In
doubt, an operation counts as a staircase: Square is added to the attacks, and the gradient is tested as a surrogate.
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
    "FunctionProto": {"name": 1, "input": 4, "output": 5, "node": 7, "domain": 10, "overload": 13},
    "GraphProto": {"node": 1, "initializer": 5, "input": 11, "output": 12, "sparse_initializer": 15},
    "NodeProto": {"input": 1, "output": 2, "name": 3, "op_type": 4, "attribute": 5, "domain": 7},
    "AttributeProto": {"name": 1, "i": 3, "s": 4, "t": 5, "g": 6, "tensors": 10, "graphs": 11},
    "SparseTensorProto": {"values": 1},
    "TensorProto": {"dims": 1, "data_type": 2},
    "ValueInfoProto": {"name": 1},
}
"""The numbers of the fields of onnx.proto that are read, by message and name."""

STAIRCASES = frozenset(
    {
        *("Round", "Floor", "Ceil", "Sign", "Mod", "Shrink", "IsInf", "IsNaN"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("ArgMax", "ArgMin", "Hardmax", "OneHot", "TopK", "NonMaxSuppression", "NonZero", "Unique"),
        "BitCast",
    }
)
"""Operations whose output changes in steps, or that choose. A Cast is one too if its type is not floating point."""
SLOPING = frozenset({None, "bilinear", "linear", "bicubic", "cubic"})
"""The modes of GridSample that have a slope; None is the default."""
CLASSICAL = "ai.onnx.ml"
"""The domain of decision trees, thresholds and look-ups."""
OF_SHAPES = frozenset({"Shape", "Size"})
"""Operations whose output depends only on shapes, and not on the image's values."""
QUANTISING = re.compile(r"Q[A-Z]|.*([Qq]uantiz|Integer|NBits|Bnb4|FpQ4)")
"""Names of operations that quantise or compute in integers, in the domains of ONNX and ONNX Runtime."""
OF_BATCH = "DynamicQuantize"
"""The beginning of the names of operations that quantise by the range of their whole input, and so of the batch."""
BYTE = 2
"""TensorProto.DataType.UINT8"""
TO_BYTES = ("Mul", "Round", "Cast")
"""The operations that `pack` puts before a model that takes bytes."""
REALS = {16: "bfloat16", 10: "float16", 1: "float32", 11: "float64"}
"""Floating-point types of TensorProto.DataType, the narrowest first. Narrower ones count as quantised."""


class Step(NamedTuple):
    """A node, or a link that carries values into or out of a subgraph or function.

    Args:
        operator: the node's operator; empty for a link.
        domain: the operator's domain.
        name: the node's name.
        inputs: names of the input values.
        outputs: names of the output values.
        to: the TensorProto.DataType to which a Cast converts.
        mode: the node's attribute of that name.

    """

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    to: int | None = None
    mode: str | None = None

    @property
    def is_of_shapes(self) -> bool:
        """Whether its output is the same for every image."""
        return self.operator in OF_SHAPES and self.domain in ("", "ai.onnx")

    @property
    def is_staircase(self) -> bool:
        """Whether its output changes in steps."""
        if self.operator in ("Cast", "CastLike"):
            return self.to not in REALS
        if self.operator == "MaxPool" and len(self.outputs) > 1:
            return True  # the second output is the index of the largest value
        if self.operator == "GridSample":
            return self.mode not in SLOPING  # its places may depend on the image, and the nearest pixel has no slope
        return self.operator in STAIRCASES or self.domain == CLASSICAL


def graph_facts(graph: bytes) -> GraphFacts:
    """Return the facts about an ONNX graph.

    Args:
        graph: a serialised ModelProto.

    Raises:
        BadModel: the bytes are not an ONNX graph.

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
    """Return whether a gradient graph contains every step of a forward graph, and so computes the same logits.

    It does not if steps without a rule were first written out in others, which give the same answers up to rounding.

    Raises:
        BadModel: one of them is not an ONNX graph.

    """
    return set(_read(forward).steps) <= set(_read(gradient).steps)


def staircases(graph: bytes) -> tuple[str, ...]:
    """Return the staircases between image and logits in the order of the graph, each like 'Round /act/Round'.

    Raises:
        BadModel: the bytes are not an ONNX graph.

    """
    nodes = (step for step in _on_the_way(_read(graph)) if step.is_staircase)
    return tuple(f"{node.operator} {node.name or ','.join(node.outputs)}" for node in nodes)


def _takes_bytes(found: _Found) -> bool:
    """Return whether the graph has one input and reads it only through the operations TO_BYTES."""
    values, step = tuple(found.inputs), None
    for operator in TO_BYTES:
        readers = [each for each in found.steps if set(values) & set(each.inputs)]
        if len(values) != 1 or [each.operator for each in readers] != [operator]:
            return False
        (step,) = readers
        values = step.outputs
    return step is not None and step.to == BYTE


def _on_the_way(found: _Found) -> list[Step]:
    """Return the steps on a path from the inputs' values to the outputs."""
    forth = _reached(found.inputs, ((step.inputs, step.outputs) for step in found.steps if not step.is_of_shapes))
    back = _reached(found.outputs, ((step.outputs, step.inputs) for step in found.steps if not step.is_of_shapes))
    return [step for step in found.steps if forth.intersection(step.inputs) and back.intersection(step.outputs)]


def _reached(start: Iterable[str], ways: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> set[str]:
    """Return all values that can be reached; each way leads from any of its first values to all of its second."""
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
    """Collects steps and types in a walk over a model. Names of values in a function are prefixed with its name."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.kinds: set[int] = set()
        self._functions: dict[tuple[str, str], list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}

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
            for inputs, outputs in self._functions.get((step.domain, step.operator), ()):
                self.way(step.inputs, inputs)
                self.way(outputs, step.outputs)

    def way(self, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        if first and second:
            self.steps.append(Step("", "", "", first, second))

    def function(self, data: memoryview) -> None:
        """Walk over a function. A node counts as a call of every function of its name, whichever overload it names."""
        of = NUMBERS["FunctionProto"]
        texts = _texts(data)
        domain, name, overload = (_last(texts.get(of[key])) for key in ("domain", "name", "overload"))
        prefix = f"{domain}/{name}/{overload}/"
        ends = (_named(prefix, texts.get(of["input"])), _named(prefix, texts.get(of["output"])))
        self._functions.setdefault((domain, name), []).append(ends)
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
        of, texts = NUMBERS["NodeProto"], _texts(data)
        inputs, outputs = (_named(prefix, texts.get(of[key])) for key in ("input", "output"))
        to = mode = None
        for attribute in texts.get(of["attribute"], ()):
            called = self.attribute(attribute, prefix, depth, inputs, outputs)
            if called == "to":
                to = _number(attribute, NUMBERS["AttributeProto"]["i"])
            elif called == "mode":
                mode = _last(_texts(attribute).get(NUMBERS["AttributeProto"]["s"]))
        if to in REALS:
            self.kinds.add(to)
        operator, domain, name = (_last(texts.get(of[key])) for key in ("op_type", "domain", "name"))
        self.steps.append(Step(operator, domain, name, inputs, outputs, to, mode))

    def attribute(
        self, data: memoryview, prefix: str, depth: int, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> str:
        """Walk into an attribute's tensors and graphs, and return its name."""
        of, texts = NUMBERS["AttributeProto"], _texts(data)
        for key in ("t", "tensors"):
            for tensor in texts.get(of[key], ()):
                self.tensor(tensor)
        for key in ("g", "graphs"):
            for graph in texts.get(of[key], ()):
                inner, given = self.graph(graph, prefix, depth - 1)
                self.way(inputs, inner)
                self.way(given, outputs)
        return _last(texts.get(of["name"]))

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
    """Return the fields of a message that contain bytes, each with all its values."""
    held: dict[int, list[memoryview]] = {}
    for field, value in fields_of(data):
        if not isinstance(value, int):
            held.setdefault(field, []).append(value)
    return held


def _number(data: memoryview, wanted: int) -> int | None:
    """Return the value of a number field, None if it is missing. As in parsers, the last occurrence counts."""
    numbers = [value for field, value in fields_of(data) if isinstance(value, int) and field == wanted]
    return numbers[-1] & WORD if numbers else None


def _last(texts: list[memoryview] | None) -> str:
    """Return the value of a text field. As in parsers, the last occurrence counts."""
    return bytes(texts[-1]).decode(errors="replace") if texts else ""


def _named(prefix: str, texts: list[memoryview] | None) -> tuple[str, ...]:
    """Return the names of values with a prefix; empty names are left out."""
    return tuple(prefix + bytes(text).decode(errors="replace") for text in texts or () if len(text))
