"""bench.json, schema edgeproof.bench/1: how fast, how hot and at what power the artifact runs on a machine."""

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
    """Milliseconds from a batch being handed over to its logits being there, over all queries.

    Percentiles are MLPerf LoadGen's: the value at place floor(n p) of the sorted ones, none between two. `p90_at_most`
    is an upper bound of the 90th percentile that holds with 99 % confidence; null for fewer than 44 queries.
    """

    mean: float
    least: float
    p50: float
    p90: float
    p99: float
    most: float
    p90_at_most: float | None


class Level(Frozen):
    """A reading over a measurement: its mean by time, and its largest."""

    mean: float
    most: float


class Power(Frozen):
    """Watts by rail; the energy of an image from what `of` names, which is all that is known to be its part.

    `of` is the board's input, or the rails that make it up; on a PC the CPU's packages and the GPU. Empty, and the
    figures null, where no sensor measures the whole.
    """

    rails: dict[Text, Level]
    of: tuple[Text, ...]
    watts: float | None
    joules_an_image: float | None


class Rules(Frozen):
    """Which of MLPerf's conditions on a run hold: SingleStream's for a batch of one, else Offline's."""

    scenario: Literal["SingleStream", "Offline"]
    seconds: bool
    samples: bool


class Minute(Frozen):
    """One minute of a measurement, or what there was of a shorter one: milliseconds of its queries, means by sensor."""

    queries: Count
    p50: float
    p90: float
    celsius: dict[Text, float]
    megahertz: dict[Text, float]


class BenchRun(Frozen):
    """One precision at one batch size. `throttled` names what lowered a clock meanwhile; empty: nothing did.

    `minutes` are whole ones, or the one that there was. `after_idle_ms`: the first query after `idle_seconds` without
    any; null where it was not measured. `power_mode` as the board calls it, `clocks_locked` whether none of its clocks
    may move: null where that is not known, as in files of earlier versions.
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
        """How much longer a query took in the last minute than in the first, by the median; None of one minute."""
        return self.minutes[-1].p50 / self.minutes[0].p50 if len(self.minutes) > 1 else None


class Bench(Frozen):
    """bench.json. Each run is warmed up first; `threads` of a CPU are those of `device`."""

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
    """Read bench.json of a directory; None where there is none.

    Raises:
        BadData: it is damaged, or of another schema.

    """
    path = directory / BENCH
    if not path.is_file():
        return None
    try:
        return Bench.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadData(f"{path}: {first_fault(error)}", hint="it is damaged, or made by another version") from None
