"""Figures of parts of a set, added up to figures of the whole: blocks of a run, shards of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.records.report import Agreement, AttackRow, CurvePoint, Probe
from runtime.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Sequence


def add_rows(parts: Sequence[tuple[AttackRow, ...]], n: int) -> tuple[AttackRow, ...]:
    """Return the rows of all parts together, which have n images."""
    return tuple(_add_row(rows, n) for rows in zip(*parts, strict=True))


def _add_row(rows: Sequence[AttackRow], n: int) -> AttackRow:
    total = {cost: sum(getattr(row, cost) for row in rows) for cost in ("seconds", "forwards", "gradients")}
    attacked, broken = sum(row.attacked for row in rows), sum(row.broken for row in rows)
    left = attacked - broken
    figures = {"attacked": attacked, "broken": broken, "accuracy": left / n, "ci95": wilson(left, n)}
    return rows[0].model_copy(update=figures | total)


def add_points(points: Sequence[CurvePoint | None]) -> CurvePoint | None:
    """Return the accuracy on all parts' images together at one eps; None where no part measured it."""
    known = [point for point in points if point is not None]
    if not known:
        return None
    n = sum(point.n for point in known)
    return CurvePoint(eps=known[0].eps, n=n, accuracy=sum(round(point.accuracy * point.n) for point in known) / n)


def add_curves(curves: Sequence[tuple[CurvePoint, ...]]) -> tuple[CurvePoint, ...]:
    """Return the curve of all parts together; those without one leave it as it is."""
    return tuple(point for points in zip(*filter(None, curves), strict=True) if (point := add_points(points)))


def add_agreements(parts: Sequence[Agreement | None]) -> Agreement | None:
    """Return the agreement on all parts' points; None where no part measured it."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return Agreement(n=sum(part.n for part in known), same_prediction=sum(part.same_prediction for part in known))


def add_probes(parts: Sequence[Probe | None]) -> Probe | None:
    """Return what all parts' images answered; None where no part asked."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return Probe(**{name: sum(getattr(part, name) for part in known) for name in Probe.model_fields})
