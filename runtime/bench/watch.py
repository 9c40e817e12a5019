"""Samples of the sensors during a measurement, and the figures that follow from them."""

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
"""Seconds between two samples. An INA3221 averages over milliseconds; a board's temperature changes in seconds."""


@dataclass
class Watch:
    """A context that samples the sensors in a thread of its own, and once at each end.

    Args:
        sensors: the sensors to read.
        clock: returns seconds, monotonic; the clock that times the measurement.
        period: seconds between two samples.
        samples: the samples so far, in order of time.

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
    """Return the mean over time and the maximum of every sensor of a kind, where a kind is a field of Sample."""
    series: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        for name, value in getattr(sample, kind).items():
            series.setdefault(name, []).append((sample.at, value))
    return {name: Level(mean=_mean(points), most=max(value for _, value in points)) for name, points in series.items()}


def power(samples: Sequence[Sample], wraps: Readings, *, seconds: float, images: int) -> Power | None:
    """Return power by rail in watts, and energy per image in joules; None if no sensor measures power.

    Args:
        samples: from the beginning to the end of the measurement.
        wraps: the joules at which each counter restarts from 0.
        seconds: the duration of the measurement.
        images: the images that were classified during it.

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
    """Return what lowered a clock during these samples: an active brake, a counted event, or a lowered cap."""
    first, last = samples[0], samples[-1]
    found = {brake for sample in samples for brake in sample.brakes}
    found |= {name for name, count in last.events.items() if count > first.events.get(name, count)}
    for sample in samples:
        found |= {f"{name} capped" for name, cap in sample.caps.items() if cap < first.caps.get(name, cap)}
    return tuple(sorted(found))


def _mean(points: Sequence[tuple[float, float]]) -> float:
    """Return the mean over time of (time, value) points, linear between two points."""
    span = points[-1][0] - points[0][0]
    if span <= 0:
        return sum(value for _, value in points) / len(points)
    return sum((then - at) * (was + now) / 2 for (at, was), (then, now) in pairwise(points)) / span


def _from_counters(samples: Sequence[Sample], wraps: Readings) -> Readings:
    """Return the mean watts by energy counter, from its rise per second; a restart of the counter is allowed for."""
    found: Readings = {}
    for name in samples[0].joules:
        points = [(sample.at, sample.joules[name]) for sample in samples if name in sample.joules]
        span = points[-1][0] - points[0][0]
        steps = pairwise(points)
        rose = sum(now - was if now >= was else now - was + wraps.get(name, 0.0) for (_, was), (_, now) in steps)
        if span > 0:
            found[name] = rose / span
    return found
