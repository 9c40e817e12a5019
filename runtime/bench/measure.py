"""Latency, throughput, power and heat of an artifact on this machine, by MLPerf's rules as far as they apply.

One query begins when the last has ended. Its images are in memory, drawn with replacement from a fixed seed. The time
of a query runs from handing over float32 images to having the logits; preparing the images is not timed.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.bench.minutes import Minutes
from runtime.bench.percentiles import latency
from runtime.bench.watch import Watch, levels, power, throttled
from runtime.machine.board import PINNED
from runtime.machine.card import machine_card
from runtime.records.bench import BenchRun, Rules
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime.images.image_set import ImageSet
    from runtime.machine.card import Card
    from runtime.machine.sensors import Sensors
    from runtime.session import Judge

POOL_IMAGES, POOL_VALUES = 1024, 2**24
"""The most images from which queries are drawn, and the most values of all of them: 64 MiB."""
WARM_UP_SECONDS, WARM_UP_QUERIES = 1.0, 3
"""The least warm-up before anything is timed."""
MIN_QUERIES = 10
"""The fewest queries to time, however long they take."""
MLPERF_SECONDS, MLPERF_SAMPLES = 600, 24_576
"""MLCommons' inference rules: the least duration of every scenario, and the fewest samples of Offline."""


@dataclass(frozen=True)
class Timed:
    """The seconds of each query (float64 [N]), and when the first began and the last ended."""

    latencies: Any
    began: float
    ended: float


def draw(images: ImageSet, batch: int, seed: int = 0) -> Iterator[Any]:
    """Yield random batches without end: float32 [batch, C, H, W] in [0, 1]."""
    most = min(len(images), POOL_IMAGES, max(1, POOL_VALUES // prod(images.images.shape[1:])))
    pool, random = images.as_float(np.arange(most)), np.random.Generator(np.random.Philox(seed))
    while True:
        yield pool[random.integers(most, size=batch)]


def time_queries(
    ask: Callable[[Any], Any],
    queries: Iterator[Any],
    *,
    seconds: float,
    at_least: int,
    clock: Callable[[], float],
    told: Callable[[float, float], None] = lambda latency, ended: None,
) -> Timed:
    """Time one query after another until `seconds` have passed and `at_least` queries are done.

    `told` is called after each query with its latency and its end, both in seconds.
    """
    latencies, began = array("d"), clock()
    ended = began
    while ended - began < seconds or len(latencies) < at_least:
        query = next(queries)
        asked = clock()
        ask(query)
        ended = clock()
        latencies.append(ended - asked)
        told(ended - asked, ended)
    return Timed(np.frombuffer(latencies), began, ended)


def bench(
    session: Judge,
    images: ImageSet,
    batch: int,
    *,
    seconds: float,
    sensors: Sensors,
    clock: Callable[[], float],
    idle: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    machine: Callable[[], Card] = machine_card,
) -> BenchRun:
    """Measure one precision at one batch size.

    Args:
        session: the artifact, opened.
        images: the images of the queries.
        batch: images per query.
        seconds: the least duration of the measurement, without the warm-up.
        sensors: read during the measurement.
        clock: returns seconds, monotonic.
        idle: pause in seconds before one more query, which is timed separately; 0 for none.
        sleep: waits for a number of seconds.
        machine: returns the machine's card, with its power mode and clocks.

    Raises:
        BadModel: the graph does not accept these images or this batch size.

    """
    queries, card = draw(images, batch), session.card()
    time_queries(session.logits, queries, seconds=WARM_UP_SECONDS, at_least=WARM_UP_QUERIES, clock=clock)
    with Watch(sensors, clock) as watch:
        minutes = Minutes(clock(), watch.samples, log.info)
        timed = time_queries(
            session.logits, queries, seconds=seconds, at_least=MIN_QUERIES, clock=clock, told=minutes.query
        )
    count, took, samples = len(timed.latencies), timed.ended - timed.began, watch.samples
    return BenchRun(
        precision=card.precision,
        sha256=card.sha256,
        engine_sha256=card.engine_sha256,
        batch=batch,
        queries=count,
        seconds=took,
        latency_ms=latency(1000 * timed.latencies),
        images_per_second=count * batch / float(timed.latencies.sum()),
        power=power(samples, sensors.wraps, seconds=took, images=count * batch),
        celsius=levels(samples, "celsius"),
        megahertz=levels(samples, "megahertz"),
        throttled=throttled(samples),
        rules=Rules(
            scenario="SingleStream" if batch == 1 else "Offline",
            seconds=took >= MLPERF_SECONDS,
            samples=batch == 1 or count * batch >= MLPERF_SAMPLES,
        ),
        minutes=minutes.all(),
        after_idle_ms=_after(idle, session, queries, clock, sleep) if idle else None,
        idle_seconds=idle or None,
        **_settings(machine()),
    )


def _after(
    idle: float, session: Judge, queries: Iterator[Any], clock: Callable[[], float], sleep: Callable[[float], None]
) -> float:
    """Return the milliseconds of one query after `idle` seconds without any."""
    sleep(idle)
    timed = time_queries(session.logits, queries, seconds=0.0, at_least=1, clock=clock)
    return 1000 * float(timed.latencies[0])


def _settings(card: Card) -> dict[str, Any]:
    """Return `power_mode`, and `clocks_locked`: whether all clocks with known limits are pinned (None if none is)."""
    clocks = [str(card[name]) for name in ("cpu_clock", "gpu_clock") if name in card]
    locked = all(clock.endswith(PINNED) for clock in clocks) if clocks else None
    return {"power_mode": card.get("power_mode"), "clocks_locked": locked}
