"""The record of a comparison, from which every format is made: finished runs, each matched with the first by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from runtime.errors import BadData
from runtime.records.bench import Latency
from runtime.records.measurements import Count, Interval
from runtime.records.report import Paired
from runtime.report.phrases import accuracy_rows, verdict_of
from runtime.spec import DataRecord, Digest, Fraction, Frozen, Name, ProviderName, Text, ThreatModel
from runtime.statistics import Verdict
from runtime.verdict.paired import Finished, compare_finished

if TYPE_CHECKING:
    from collections.abc import Sequence


class Figure(Frozen):
    """An accuracy as a fraction of the run's images, with its 95 % interval."""

    name: Text
    value: Fraction
    ci95: Interval


class Against(Frozen):
    """A comparison of this run with the first, on the images that both attacked.

    `same_prediction` counts clean images for which both predict the same class, correct or not. `worst_case` is this
    run's figure minus the first's. `only_this` and `only_first` are the indices of images that are robust in one run
    only. If the worst cases cannot be compared (`runtime.verdict.paired`), these are null and empty. `notes` say why,
    and whether the seeds differ.
    """

    images: Count
    same_prediction: Count
    only_this: tuple[Count, ...]
    only_first: tuple[Count, ...]
    worst_case: Paired | None
    notes: tuple[Text, ...]


class Side(Frozen):
    """One run. `against` is null for the first run, and if the images cannot be matched; then `unmatched` says why."""

    run: Text
    name: Name
    sha256: Digest
    precision: Name
    backend: Name
    provider: ProviderName
    gradient_backend: Name | None = None
    gradient_provider: ProviderName | None = None
    engines: Text
    latency_ms: Latency | None = None
    device: Text
    bundle_version: int | None
    edgeproof: Text | None
    verdict: Verdict
    data: DataRecord
    threat_model: ThreatModel
    figures: tuple[Figure, ...]
    against: Against | None = None
    unmatched: Text = ""


class Comparison(Frozen):
    """Runs side by side. The first is the base of the comparison."""

    schema_: Literal["edgeproof.comparison/1"] = Field(alias="schema", default="edgeproof.comparison/1")
    runs: Annotated[tuple[Side, ...], Field(min_length=2)]


def compare(runs: Sequence[Finished]) -> Comparison:
    """Compare runs; each run after the first is matched with the first."""
    first, *others = runs
    return Comparison(runs=(_side(first), *(_matched(other, first) for other in others)))


def _side(run: Finished) -> Side:
    report, artifact = run.report, run.report.artifact
    accelerator = report.device.get("accelerator", "")
    return Side(
        run=run.where,
        name=artifact.name,
        sha256=artifact.sha256,
        precision=artifact.precision,
        backend=artifact.backend,
        provider=artifact.provider,
        gradient_backend=artifact.gradient_backend,
        gradient_provider=artifact.gradient_provider,
        engines=artifact.engines,
        latency_ms=_latency(run),
        device=str(report.device.get("cpu", "unknown") if accelerator in ("", "cpu") else accelerator),
        bundle_version=artifact.bundle_version,
        edgeproof=report.software.get("edgeproof"),
        verdict=verdict_of(report),
        data=report.data,
        threat_model=report.threat_model,
        figures=tuple(Figure(name=row.name, value=row.accuracy, ci95=row.ends) for row in accuracy_rows(report)),
    )


def _latency(run: Finished) -> Latency | None:
    """Return the latency of one image at a time; None unless bench.json is of the same artifact and judge."""
    artifact, measured = run.report.artifact, run.bench
    if measured is None or (measured.backend, measured.provider) != (artifact.backend, artifact.provider):
        return None
    same = (each.latency_ms for each in measured.runs if each.sha256 == artifact.sha256 and each.batch == 1)
    return next(same, None)


def _matched(run: Finished, first: Finished) -> Side:
    side = _side(run)
    try:
        matched = compare_finished(run, first)
    except BadData as error:
        return side.model_copy(update={"unmatched": error.message})
    index, this, that = matched.both.index, matched.both.this, matched.both.that
    comparable, seed, its = matched.worst_case is not None, run.report.seed, first.report.seed
    return side.model_copy(
        update={
            "against": Against(
                images=len(index),
                same_prediction=matched.same_prediction,
                only_this=tuple(index[this & ~that].tolist()) if comparable else (),
                only_first=tuple(index[~this & that].tolist()) if comparable else (),
                worst_case=matched.worst_case,
                notes=(
                    *([] if comparable else [f"the worst cases are not compared: {matched.why}"]),
                    *([f"the seed is {seed}, in the first {its}"] if seed != its else []),
                ),
            )
        }
    )
