"""Finds the output of a model that holds one number for each class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from export.adapt.softmax import MOVING
from export.graph.floating import REAL
from runtime.errors import BadModel

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from export.adapt.batch import FreedGraph

UNSORTED = "end the model at its scores: the positions of sorted numbers are not classes"
ENDS = frozenset({*MOVING, "Unsqueeze", "Softmax", "LogSoftmax", "Sigmoid", "Mul", "Div"})
"""Operations behind a TopK that leave its numbers in their order."""


def output_of(model: ModelProto, graph: FreedGraph, wanted: str | None, changes: list[str]) -> tuple[str, int]:
    """Return the output that holds one number for each class, and how many; 1 for a single number.

    Args:
        model: the classifier.
        graph: what is known of its values.
        wanted: the name of the output, where somebody says it; else the only one that fits.
        changes: told where others are left out.

    Raises:
        BadModel: none fits, or more than one does and nobody says which; the one wanted is not there or does not fit.

    """
    names = [info.name for info in model.graph.output]
    if wanted is not None and wanted not in names:
        raise BadModel(f"the model has no output {wanted!r}", hint=f"its outputs: {_described(names, graph)}")
    fitting = {name: sizes for name in names if (sizes := _numbers(graph, name)) is not None}
    ranked = [name for name in fitting if _is_sorted(graph, name)]
    candidates = [name for name in fitting if name not in ranked] if wanted is None else [wanted]
    if wanted in ranked or (ranked and not candidates):
        raise BadModel(f"the output {wanted or ranked[0]!r} is sorted, as by TopK", hint=UNSORTED)
    if len(candidates) > 1:
        raise BadModel(
            f"several outputs may hold one number per class: {_described(names, graph)}",
            hint=f"choose one, such as --output {candidates[0]}",
        )
    if not candidates or candidates[0] not in fitting:
        what = f"the output {wanted!r} has no" if wanted else "none of the outputs has a"
        raise BadModel(
            f"{what} number per class ({_described(names, graph)})",
            hint="export one output, [batch, classes], and keep the batch axis throughout the graph",
        )
    if len(names) > 1:
        changes.append(f"only {candidates[0]} kept of the outputs {', '.join(names)}")
    return candidates[0], fitting[candidates[0]]


def _numbers(graph: FreedGraph, name: str) -> int | None:
    """Return how many numbers an output holds for each image along one axis; None if it has another form."""
    sizes = graph.sizes(name)
    if not sizes or graph.batch_axis(name) != 0 or graph.kind(name) not in REAL:
        return None
    count = math.prod(sizes[1:])
    return count if max(sizes[1:], default=1) == count else None


def _is_sorted(graph: FreedGraph, name: str) -> bool:
    """Whether a value is what a TopK chose, at most scaled since."""
    makers: dict[str, NodeProto] = {output: node for node in graph.nodes for output in node.output}
    maker = makers.get(name)
    while maker is not None and maker.op_type in ENDS:
        maker = next((makers[each] for each in maker.input if each in makers), None)
    return maker is not None and maker.op_type == "TopK"


def _described(names: list[str], graph: FreedGraph) -> str:
    return "; ".join(f"{name}: {list(graph.sizes(name) or ['?'])}" for name in names)
