"""The sensors watched while something is measured, and what they then say of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from runtime.machine.sensors import GPU, whole
from runtime.records.bench import Level, Power

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from runtime.machine.sensors import Readings, Sample, Sensors

    Self = TypeVar("Self", bound="Watch")

PERIOD = 0.1
"""Seconds between two samples; an INA3221 averages over some milliseconds, a board's temperature moves in seconds."""


@dataclass
class Watch:
    """Samples the sensors in a thread of its own, from entering it to leaving it, once at each end.

    Args:
        sensors: read.
        clock: seconds, monotonic; the one that the measurement is timed by.
        period: seconds between two samples.
        samples: taken so far, in order of time.

    """

    sensors: Sensors
    clock: Callable[[], float]
    period: float = PERIOD
    samples: list[Sample] = field(default_factory=list)

    def sample(self) -> None:
        """Take one sample."""
        self.samples.append(self.sensors.sample(self.clock()))

    def __enter__(self: Self) -> Self:
        self.sample()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sensors", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def _watch(self) -> None:
        while not self._stop.wait(self.period):
            self.sample()


def levels(samples: Sequence[Sample], kind: str) -> dict[str, Level]:
    """Return mean by time and maximum of every sensor of a kind, a field of Sample."""
    series: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        for name, value in getattr(sample, kind).items():
            series.setdefault(name, []).append((sample.at, value))
    return {name: Level(mean=_mean(points), most=max(value for _, value in points)) for name, points in series.items()}


def power(samples: Sequence[Sample], wraps: Readings, *, seconds: float, images: int) -> Power | None:
    """Return power by rail and energy an image; None where nothing measures any.

    Args:
        samples: from the begin to the end of the measurement.
        wraps: joules at which a counter begins again.
        seconds: it took.
        images: done meanwhile.

    """
    rails = levels(samples, "watts")
    for name, watts in _from_counters(samples, wraps).items():
        rails[name] = Level(mean=watts, most=watts)
    if not rails:
        return None
    counters = tuple(name for name in rails if name not in levels(samples, "watts"))
    of = whole(rails) or (counters and (*counters, *(name for name in rails if name == GPU)))
    total = sum(rails[name].mean for name in of) if of else None
    return Power(rails=rails, of=of, watts=total, joules_an_image=None if total is None else total * seconds / images)


def throttled(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return what lowered a clock during these samples: a brake that was on, an event counted, a cap that sank."""
    first, last = samples[0], samples[-1]
    found = {brake for sample in samples for brake in sample.brakes}
    found |= {name for name, count in last.events.items() if count > first.events.get(name, count)}
    for sample in samples:
        found |= {f"{name} capped" for name, cap in sample.caps.items() if cap < first.caps.get(name, cap)}
    return tuple(sorted(found))


def _mean(points: Sequence[tuple[float, float]]) -> float:
    """Return the mean over time of a value that goes in a straight line from point to point."""
    span = points[-1][0] - points[0][0]
    if span <= 0:
        return sum(value for _, value in points) / len(points)
    return sum((then - at) * (was + now) / 2 for (at, was), (then, now) in pairwise(points)) / span


def _from_counters(samples: Sequence[Sample], wraps: Readings) -> Readings:
    """Return the mean watts that counters of energy tell: what they rose by, also past their end."""
    found: Readings = {}
    for name in samples[0].joules:
        points = [(sample.at, sample.joules[name]) for sample in samples if name in sample.joules]
        span = points[-1][0] - points[0][0]
        steps = pairwise(points)
        rose = sum(now - was if now >= was else now - was + wraps.get(name, 0.0) for (_, was), (_, now) in steps)
        if span > 0:
            found[name] = rose / span
    return found
