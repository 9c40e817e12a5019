"""Merges the shards of a run, which may come from several machines, into the result of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadRun
from runtime.gallery import store as gallery
from runtime.records.options import without_option
from runtime.records.request import Request
from runtime.records.totals import add_counts, add_curves, add_points, add_rows
from runtime.spec import Shard
from runtime.statistics import Pairs
from runtime.suite.evidence import Evidence
from runtime.suite.outcome import COUNTS, Outcome
from runtime.verdict.figures import build_report
from runtime.verdict.paired import paired_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.gallery.store import Gallery
    from runtime.records.report import Circumstances, Paired, Report, ShardRecord


@dataclass(frozen=True)
class Part:
    """A finished shard, read back. `where` is its name in messages."""

    where: str
    request: Request
    record: ShardRecord
    evidence: Evidence
    gallery: Gallery


def merge(parts: Sequence[Part]) -> tuple[Report, Evidence, Gallery]:
    """Merge all shards of one run, and judge it.

    Raises:
        BadRun: a shard is of another request, is given twice or missing, or does not have the images of its number.

    """
    parts = sorted(parts, key=lambda part: _shard(part).number)
    request = whole_request(parts)
    outcome = add_outcomes(parts, request)
    records = [part.record for part in parts]
    compared = add_pairs([record.paired for record in records])
    circumstances = add_circumstances([record.circumstances for record in records])
    report = build_report(circumstances, request, outcome, compared)
    shown = gallery.merged([part.gallery for part in parts], len(report.attacks))
    return report, outcome.evidence, shown


def whole_request(parts: Sequence[Part]) -> Request:
    """Return the request of the whole run.

    Raises:
        BadRun: see `merge`.

    """
    first = parts[0]
    for part in parts:
        other = part.request.unlike(first.request, "shard")
        if other:
            raise BadRun(
                f"{part.where} belongs to another run: its {other[0]} differs from that of {first.where}",
                hint="merge the shards of one run",
            )
    count = _shard(first).count
    where: dict[int, str] = {}
    for part in parts:
        shard = _shard(part)
        if shard.count != count:
            raise BadRun(
                f"{part.where} is shard {shard}, but {first.where} is shard {_shard(first)}",
                hint="merge the shards of one run",
            )
        if shard.number in where:
            raise BadRun(
                f"{part.where} and {where[shard.number]} overlap: both are shard {shard}", hint="give each once"
            )
        where[shard.number] = part.where
        if not np.array_equal(part.evidence.index, shard.of(np.arange(part.request.n))):
            raise BadRun(f"{part.where} does not hold the images of shard {shard}", hint="run this shard again")
    missing = [str(Shard(number, count)) for number in range(1, count + 1) if number not in where]
    if missing:
        raise BadRun(f"shards are missing: {', '.join(missing)}", hint="make them with verify --shard")
    command = without_option(first.request.command, Request, "shard")
    return first.request.model_copy(update={"shard": None, "command": command})


def add_outcomes(parts: Sequence[Part], request: Request) -> Outcome:
    """Return the outcome of the whole run."""
    records = [part.record for part in parts]
    return Outcome(
        Evidence.merged([part.evidence for part in parts]),
        add_rows([record.attacks for record in records], request.n),
        add_curves([record.eps_curve for record in records]),
        add_points([record.far for record in records]),
        **{name: add_counts([getattr(record, name) for record in records]) for name in COUNTS},
    ).settled


def add_pairs(parts: Sequence[Paired | None]) -> Paired | None:
    """Return the comparison on the images of all shards; None if no shard has one."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return paired_record(
        known[0].against, Pairs(*(sum(getattr(part, cell) for part in known) for cell in Pairs._fields))
    )


def add_circumstances(parts: Sequence[Circumstances]) -> Circumstances:
    """Return the circumstances of all shards together: the sum of seconds, the first start, and all machines.

    The artifact counts as authenticated only if it was so for every shard.
    """
    devices = _side_by_side([part.device for part in parts])
    engines = {part.artifact.engine_sha256 for part in parts}  # each device builds its own
    authenticated = all(part.artifact.authenticated for part in parts)
    return parts[0].model_copy(
        update={
            "artifact": parts[0].artifact.model_copy(
                update={"authenticated": authenticated, "engine_sha256": engines.pop() if len(engines) == 1 else None}
            ),
            "device": devices,
            "software": _side_by_side([part.software for part in parts]),
            "started": min(part.started for part in parts),
            "seconds": sum(part.seconds for part in parts),
        }
    )


def _side_by_side(cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of all cards: one value if they agree, or else all of them in words, with 'unknown' for none."""
    names = dict.fromkeys(name for card in cards for name in card)
    values = {name: list(dict.fromkeys(card.get(name, "unknown") for card in cards)) for name in names}
    return {name: several[0] if len(several) == 1 else ", ".join(map(str, several)) for name, several in values.items()}


def _shard(part: Part) -> Shard:
    if part.request.shard is None:
        raise BadRun(f"{part.where} is a whole run, not a shard", hint="merge takes what verify --shard writes")
    return part.request.shard
