"""Adds up the figures of parts of a set, such as the blocks or shards of a run."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.errors import BadRun
from runtime.records.measurements import AttackRow, CurvePoint, Searched
from runtime.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

Counts = TypeVar("Counts", bound="BaseModel")


def add_rows(parts: Sequence[tuple[AttackRow, ...]], n: int) -> tuple[AttackRow, ...]:
    """Return the rows of all parts together; the parts have n images in all."""
    return tuple(_add_row(rows, n) for rows in zip(*parts, strict=True))


def _add_row(rows: Sequence[AttackRow], n: int) -> AttackRow:
    total = {cost: sum(getattr(row, cost) for row in rows) for cost in ("seconds", "forwards", "gradients")}
    attacked, broken = sum(row.attacked for row in rows), sum(row.broken for row in rows)
    left = attacked - broken
    figures = {"attacked": attacked, "broken": broken, "accuracy": left / n, "ci95": wilson(left, n)}
    return rows[0].model_copy(update=figures | total)


def add_points(points: Sequence[CurvePoint | None]) -> CurvePoint | None:
    """Return the accuracy at one eps on the images of all parts together; None if no part measured it."""
    known = [point for point in points if point is not None]
    if not known:
        return None
    n = sum(point.n for point in known)
    return CurvePoint(eps=known[0].eps, n=n, accuracy=sum(round(point.accuracy * point.n) for point in known) / n)


def add_curves(curves: Sequence[tuple[CurvePoint, ...]]) -> tuple[CurvePoint, ...]:
    """Return the curve of all parts together; parts without a curve are left out."""
    return tuple(point for points in zip(*filter(None, curves), strict=True) if (point := add_points(points)))


def add_counts(parts: Sequence[Counts | None]) -> Counts | None:
    """Return the sum of the counts of all parts; None if no part has any.

    Numbers and counts by name are added. A field that is null or a flag must be equal in all parts.

    Raises:
        BadRun: a field is null in some parts alone, as an earlier version wrote it.

    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    total = {name: _add(name, [getattr(part, name) for part in known]) for name in type(known[0]).model_fields}
    return known[0].model_copy(update=total)


def _add(name: str, values: Sequence[Any]) -> Any:
    first = values[0]
    if any((value is None) != (first is None) for value in values):
        raise BadRun(
            f"only some parts have {name}: different versions of edgeproof judged them",
            hint="judge all parts with one version",
        )
    if first is None or isinstance(first, bool):
        return first
    if isinstance(first, dict):
        return {name: sum(value.get(name, 0) for value in values) for name in dict.fromkeys(chain(*values))}
    return sum(values)


def add_control(control: Searched, smoothed: Searched) -> Searched:
    """Return the blind control with the images added that smoothed gradients broke of those it left."""
    both = add_counts([control, smoothed])
    assert both is not None
    return both.model_copy(update={"n": control.n})
