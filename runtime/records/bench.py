"""bench.json, schema edgeproof.bench/1: speed, power and heat of an artifact on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from runtime.errors import BadData
from runtime.spec import Digest, Document, Frozen, Name, ProviderName, Text, first_fault

if TYPE_CHECKING:
    from pathlib import Path

BENCH = "bench.json"
Count = Annotated[int, Field(gt=0)]


class Latency(Frozen):
    """Milliseconds from handing over a batch to having its logits, over all queries.

    Percentiles are as in MLPerf LoadGen: the value at place floor(n p) of the sorted values, without interpolation.
    `p90_at_most` is an upper bound of the 90th percentile with 99 % confidence; null for fewer than 44 queries.
    """

    mean: float
    least: float
    p50: float
    p90: float
    p99: float
    most: float
    p90_at_most: float | None


class Level(Frozen):
    """A sensor's readings over a measurement: the mean over time, and the largest."""

    mean: float
    most: float


class Power(Frozen):
    """Watts by rail, and the total in watts and in joules per image.

    `of` names the rails in the total: the board's input or the rails that make it up; on a PC the CPU's packages and
    the GPU. If no sensor measures the total, `of` is empty and the figures are null.
    """

    rails: dict[Text, Level]
    of: tuple[Text, ...]
    watts: float | None
    joules_an_image: float | None


class Rules(Frozen):
    """Whether MLPerf's conditions hold: those of SingleStream for a batch of one, else those of Offline."""

    scenario: Literal["SingleStream", "Offline"]
    seconds: bool
    samples: bool


class Minute(Frozen):
    """A minute of a measurement, or all of a shorter one: milliseconds of its queries, and means by sensor."""

    queries: Count
    p50: float
    p90: float
    celsius: dict[Text, float]
    megahertz: dict[Text, float]


class BenchRun(Frozen):
    """One precision at one batch size. `throttled` names what lowered a clock during it; empty if nothing did.

    `minutes` are the whole minutes, or the one incomplete minute. `after_idle_ms` is the first query after
    `idle_seconds` without any; null if it was not measured. `power_mode` is the board's name of it. `clocks_locked`
    says whether all clocks are fixed. Both are null if unknown, as in files of earlier versions.
    """

    precision: Name
    sha256: Digest
    engine_sha256: Digest | None
    batch: Count
    queries: Count
    seconds: float
    latency_ms: Latency
    images_per_second: float
    power: Power | None
    celsius: dict[Text, Level]
    megahertz: dict[Text, Level]
    throttled: tuple[Text, ...]
    rules: Rules
    minutes: tuple[Minute, ...] = ()
    after_idle_ms: float | None = None
    idle_seconds: float | None = None
    power_mode: Text | None = None
    clocks_locked: bool | None = None

    @property
    def last_over_first(self) -> float | None:
        """The median latency of the last minute over that of the first; None with fewer than two minutes."""
        return self.minutes[-1].p50 / self.minutes[0].p50 if len(self.minutes) > 1 else None


class Bench(Frozen):
    """bench.json. Each run follows a warm-up. `device` has the CPU's cores."""

    schema_: Literal["edgeproof.bench/1"] = Field(alias="schema", default="edgeproof.bench/1")
    name: Name
    bundle_version: int | None
    authenticated: bool
    data: Text
    backend: Name
    provider: ProviderName
    runs: tuple[BenchRun, ...]
    warnings: tuple[Text, ...]
    device: Document
    software: dict[Text, Text]
    started: Text


def load_bench(directory: Path) -> Bench | None:
    """Read bench.json of a directory; return None if there is none.

    Raises:
        BadData: the file is damaged, or of another schema.

    """
    path = directory / BENCH
    if not path.is_file():
        return None
    try:
        return Bench.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadData(f"{path}: {first_fault(error)}", hint="it is damaged, or made by another version") from None
