"""A measurement minute by minute: latency, temperature and clocks."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.bench.percentiles import percentiles
from runtime.bench.watch import levels
from runtime.records.bench import Minute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.machine.sensors import Sample

MINUTE = 60.0
"""The seconds of a minute."""


@dataclass
class Minutes:
    """Counts queries, and makes a record of each minute that has passed.

    Args:
        began: the start of the current minute, in seconds of the clock that times the queries.
        samples: of the sensors; the list grows during the measurement.
        say: called with a line about every whole minute.
        done: the records of the minutes so far.

    """

    began: float
    samples: Sequence[Sample]
    say: Callable[[str], None]
    done: list[Minute] = field(default_factory=list)
    _latencies: array[float] = field(default_factory=lambda: array("d"))

    def query(self, latency: float, ended: float) -> None:
        """Count a query, by its latency and its end in seconds. It belongs to the minute in which it ended."""
        if ended >= self._end and self._latencies:
            self._close()
            self.say(f"minute {len(self.done)}: {in_words(self.done[-1])}")
        while ended >= self._end:
            self.began += MINUTE
        self._latencies.append(latency)

    def all(self) -> tuple[Minute, ...]:
        """Return the whole minutes, or the one incomplete minute if there is no whole one."""
        if not self.done and self._latencies:
            self._close()
        return tuple(self.done)

    @property
    def _end(self) -> float:
        return self.began + MINUTE

    def _close(self) -> None:
        within = [sample for sample in tuple(self.samples) if self.began <= sample.at < self._end]
        self.done.append(_minute(1000 * np.array(self._latencies), within))
        self._latencies = array("d")
        self.began = self._end


def _minute(milliseconds: Any, samples: Sequence[Sample]) -> Minute:
    """Return the record of a minute, from the latencies [N] of its queries and its samples of the sensors."""
    p50, p90 = percentiles(np.sort(milliseconds), (0.5, 0.9))
    celsius, megahertz = (
        {name: level.mean for name, level in levels(samples, kind).items()} for kind in ("celsius", "megahertz")
    )
    return Minute(queries=len(milliseconds), p50=p50, p90=p90, celsius=celsius, megahertz=megahertz)


def in_words(minute: Minute) -> str:
    """Return a minute's median and p90, its hottest zone and its fastest clock, in words."""
    hottest, fastest = max(minute.celsius.values(), default=None), max(minute.megahertz.values(), default=None)
    heat = "no temperature" if hottest is None else f"{hottest:.0f} °C"
    clock = "no clock" if fastest is None else f"{fastest:.0f} MHz"
    return f"p50 {minute.p50:.3g} ms, p90 {minute.p90:.3g} ms, {heat}, {clock}"
