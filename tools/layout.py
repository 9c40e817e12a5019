"""Places the boxes of a picture: floors from top to bottom, with as few crossing arrows as possible.

It uses Sugiyama's method. An arrow over several floors gets a point on each floor between. Rows are ordered by the mean
position of their neighbours, and then moved towards them as far as the distances allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

Node = str | tuple[str, str, int]
"""A box by its name, or the point of an arrow (from, to) on a floor."""
Edge = tuple[Node, Node]
SWEEPS = 24


@dataclass(frozen=True)
class Layout:
    """Rows of nodes, the centre of each node, and the nodes that each arrow goes through."""

    rows: tuple[tuple[Node, ...], ...]
    x: Mapping[Node, float]
    ways: Mapping[tuple[str, str], tuple[Node, ...]]


def without_detours(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the edges that do not follow from others (transitive reduction of an acyclic graph)."""
    below: dict[str, set[str]] = {}
    for start, end in edges:
        below.setdefault(start, set()).add(end)

    def reaches(start: str, end: str) -> bool:
        return any(near == end or reaches(near, end) for near in below.get(start, ()))

    return {(start, end) for start, end in edges if not any(reaches(near, end) for near in below[start] - {end})}


def lay_out(
    floors: Sequence[Sequence[str]], edges: set[tuple[str, str]], *, box: float, point: float, width: float
) -> Layout:
    """Return the positions of the rooms of every floor.

    Args:
        floors: names of rooms, from top to bottom.
        edges: pairs of a room and one below it.
        box: the width of a room in a row.
        point: the width of an arrow that passes a floor.
        width: the width of the picture; its middle is zero.

    """
    floor = {name: number for number, names in enumerate(floors) for name in names}
    ways: dict[tuple[str, str], tuple[Node, ...]] = {
        (start, end): (start, *((start, end, between) for between in range(floor[start] + 1, floor[end])), end)
        for start, end in sorted(edges)
    }
    segments = [segment for way in ways.values() for segment in pairwise(way)]
    rows = [
        [
            *names,
            *(way[number - floor[start]] for (start, end), way in ways.items() if floor[start] < number < floor[end]),
        ]
        for number, names in enumerate(floors)
    ]
    rows = _ordered(rows, segments)
    return Layout(tuple(map(tuple, rows)), _placed(rows, segments, box, point, width), ways)


def _neighbours(segments: Sequence[Edge]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {}
    for start, end in segments:
        found.setdefault(start, []).append(end)
        found.setdefault(end, []).append(start)
    return found


def _ordered(rows: list[list[Node]], segments: Sequence[Edge]) -> list[list[Node]]:
    near, best = _neighbours(segments), rows
    for sweep in range(SWEEPS):
        rows = [list(row) for row in rows]
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for number in order:
            fixed = rows[number - 1 if sweep % 2 == 0 else number + 1]
            at = {node: place / len(fixed) for place, node in enumerate(fixed)}
            own = {node: place / len(rows[number]) for place, node in enumerate(rows[number])}
            means = {
                node: fmean([at[other] for other in near.get(node, ()) if other in at] or [own[node]])
                for node in rows[number]
            }
            rows[number].sort(key=means.__getitem__)
        best = min(best, rows, key=lambda each: crossings(each, segments))
    return best


def crossings(rows: Sequence[Sequence[Node]], segments: Sequence[Edge]) -> int:
    """Return how many pairs of segments between two neighbouring rows cross."""
    at = {node: (number, place) for number, row in enumerate(rows) for place, node in enumerate(row)}
    ends = sorted((at[start], at[end]) for start, end in segments)
    return sum(
        one[0][0] == other[0][0] and (one[0][1] - other[0][1]) * (one[1][1] - other[1][1]) < 0
        for number, one in enumerate(ends)
        for other in ends[number + 1 :]
    )


def _placed(
    rows: Sequence[Sequence[Node]], segments: Sequence[Edge], box: float, point: float, width: float
) -> dict[Node, float]:
    near = _neighbours(segments)
    x = {node: box * (place - (len(row) - 1) / 2) for row in rows for place, node in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            widths = [box if isinstance(node, str) else point for node in row]
            wanted = [fmean([x[other] for other in near.get(node, ())] or [x[node]]) for node in row]
            x |= dict(zip(row, _apart(wanted, widths, width), strict=True))
    return x


def _apart(wanted: Sequence[float], widths: Sequence[float], width: float) -> Iterator[float]:
    """Yield the centres nearest to the wanted ones, in least squares, that neither overlap nor leave the picture.

    After the widths before it are subtracted, each centre must be at least the one before: isotonic regression, by
    pooling adjacent violators.
    """
    offsets = [sum(widths[:place]) + each / 2 for place, each in enumerate(widths)]
    pools: list[list[float]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        pools.append([want - offset])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    least, most = -width / 2, width / 2 - sum(widths)
    starts = [max(least, min(most, fmean(pool))) for pool in pools for _ in pool]
    return (start + offset for start, offset in zip(starts, offsets, strict=True))
