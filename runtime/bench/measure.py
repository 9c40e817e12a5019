"""Latency, throughput, power and heat of an artifact on this machine, after MLPerf's rules as far as they apply.

Queries follow one another: the next begins when the last has ended. Their images lie in memory, drawn with replacement
from a fixed seed, and preparing them is not timed; from handing over float32 images to having the logits is.
"""

from __future__ import annotations

import math
import time
from array import array
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.bench.minutes import Minutes
from runtime.bench.watch import Watch, levels, power, throttled
from runtime.machine.board import PINNED
from runtime.machine.card import machine_card
from runtime.records.bench import BenchRun, Latency, Rules
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime.images.image_set import ImageSet
    from runtime.machine.card import Card
    from runtime.machine.sensors import Sensors
    from runtime.session import Judge

POOL_IMAGES, POOL_VALUES = 1024, 2**24
"""Images in memory that queries are drawn from, and values in all: 64 MiB."""
WARM_UP_SECONDS, WARM_UP_QUERIES = 1.0, 3
"""Before anything is timed, at least."""
MIN_QUERIES = 10
"""Timed in any case, however long they take."""
MLPERF_SECONDS, MLPERF_SAMPLES = 600, 24_576
"""MLCommons' inference rules: every scenario's least duration, and Offline's least number of samples."""
CONFIDENCE = 0.99
"""MLPerf's, of its early-stopping estimate of a percentile."""


@dataclass(frozen=True)
class Timed:
    """The seconds that each query took, and when the first began and the last ended."""

    latencies: Any
    began: float
    ended: float


def draw(images: ImageSet, batch: int, seed: int = 0) -> Iterator[Any]:
    """Yield batches for ever: float32 [batch, C, H, W]."""
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
    """Ask query after query until both so many seconds and so many queries have passed; `told` of each: see Minutes."""
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
        images: fed to it.
        batch: images a query.
        seconds: measured, at least; warming up comes before.
        sensors: watched meanwhile.
        clock: seconds, monotonic.
        idle: seconds without a query, after which one is timed by itself; 0 for none.
        sleep: waits so many seconds.
        machine: says how the machine is set: its power mode, and whether its clocks may move.

    Raises:
        BadModel: the graph does not take these images or this batch.

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
    """Return the milliseconds that a query takes which none came before for so many seconds."""
    sleep(idle)
    timed = time_queries(session.logits, queries, seconds=0.0, at_least=1, clock=clock)
    return 1000 * float(timed.latencies[0])


def _settings(card: Card) -> dict[str, Any]:
    """Return `power_mode`, and `clocks_locked`: whether every clock whose limits are known is pinned."""
    clocks = [str(card[name]) for name in ("cpu_clock", "gpu_clock") if name in card]
    locked = all(clock.endswith(PINNED) for clock in clocks) if clocks else None
    return {"power_mode": card.get("power_mode"), "clocks_locked": locked}


def latency(values: Any) -> Latency:
    """Summarise latencies, of whatever unit."""
    ordered = np.sort(values)
    n = len(ordered)
    p50, p90, p99 = (float(ordered[min(int(n * p), n - 1)]) for p in (0.5, 0.9, 0.99))
    rank = bound_of_quantile(n, 0.9, CONFIDENCE)
    return Latency(
        mean=float(ordered.mean()),
        least=float(ordered[0]),
        p50=p50,
        p90=p90,
        p99=p99,
        most=float(ordered[-1]),
        p90_at_most=None if rank is None else float(ordered[rank]),
    )


def bound_of_quantile(n: int, p: float, confidence: float) -> int | None:
    """Return the rank, from 0, of the least of n sorted draws that bounds the p-quantile from above.

    Draw k (from 1) lies below the quantile only if at least k of n draws do, whose number is binomial (n, p): k is the
    least with P(fewer than k) >= confidence. None where even the largest draw does not bound it.
    """
    spread = 12 * math.sqrt(n * p * (1 - p)) + 12
    low = max(0, int(n * p - spread))
    below = 0.0  # P(fewer than k), what lies under the window is less than 1e-30
    for k in range(low, n + 1):
        if below >= confidence:
            return k - 1
        below += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
        )
    return None
