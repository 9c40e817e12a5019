"""The nodes of a graph in an order in which each comes after those that it reads, as ONNX asks for.

ONNX Runtime sorts for itself, so that files in another order, as converters of precision write them, run there.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, NodeProto


def sort_nodes(graph: GraphProto) -> None:
    """Sort the nodes of a graph, and of the graphs inside them, in place; where there is a choice, as they stand.

    Raises:
        BadModel: they read each other in a circle.

    """
    nodes = list(graph.node)
    for node in nodes:
        for inner in _inner(node):
            sort_nodes(inner)
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    before = [{makers[name] for name in _read(node) if name in makers} for node in nodes]
    if all(place > max(sources, default=-1) for place, sources in enumerate(before)):
        return
    order = _sorted(before)
    if len(order) < len(nodes):
        stuck = nodes[min(set(range(len(nodes))) - set(order))]
        raise BadModel(
            f"node {stuck.name or stuck.output[0]!r} ({stuck.op_type}) depends on its own output",
            hint="export it again",
        )
    copies = [nodes[place].SerializeToString() for place in order]
    del graph.node[:]
    for copy in copies:
        graph.node.add().ParseFromString(copy)


def _sorted(before: list[set[int]]) -> list[int]:
    """Return places so that each comes after those before it; what lies in a circle, or behind one, is left out."""
    after: list[list[int]] = [[] for _ in before]
    for place, sources in enumerate(before):
        for source in sources:
            after[source].append(place)
    waiting = [len(sources) for sources in before]
    ready = [place for place, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in after[place]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order


def _read(node: NodeProto) -> Iterator[str]:
    """Return what a node reads, and the graphs inside it."""
    yield from node.input
    for inner in _inner(node):
        for nested in inner.node:
            yield from _read(nested)
        yield from (info.name for info in inner.output)


def _inner(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
