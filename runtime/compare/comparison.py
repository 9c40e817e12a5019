"""Finished runs side by side: read, matched image by image, and put into the record that every format is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from runtime.bundle import DataRecord, Digest
from runtime.errors import BadData
from runtime.evidence import STANDS
from runtime.npz import UNREADABLE, open_npz
from runtime.paired import EVIDENCE, Both, paired
from runtime.report.words import accuracy_rows, radius
from runtime.report_schema import REPORT, Count, Interval, Paired, Report, read_report
from runtime.spec import Fraction, Frozen, ThreatModel
from runtime.statistics import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NEEDED = ("index", "label", "clean_prediction", "broken_by")
"""Arrays of evidence.npz that images are matched by."""


class Figure(Frozen):
    """An accuracy as a fraction of the run's images, and its 95 % interval."""

    name: str
    value: Fraction
    ci95: Interval


class Against(Frozen):
    """This run and the first, on the images that both attacked.

    `same_prediction` counts clean images that both put into the same class, whether it is right or not. `only_this` and
    `only_first` are the places of the images that one alone withstands. `worst_case` is this less the first; null where
    no interval holds for it, and `notes` say why, and in what else the two runs were asked differently.
    """

    images: Count
    same_prediction: Count
    only_this: tuple[Count, ...]
    only_first: tuple[Count, ...]
    worst_case: Paired | None
    notes: tuple[str, ...]


class Side(Frozen):
    """One run. `against` is null for the first, and where the images cannot be matched: then `unmatched` says why."""

    run: str
    name: str
    sha256: Digest
    precision: str
    backend: str
    provider: str
    device: str
    bundle_version: int | None
    edgeproof: str | None
    verdict: Verdict
    data: DataRecord
    threat_model: ThreatModel
    figures: tuple[Figure, ...]
    against: Against | None = None
    unmatched: str = ""


class Comparison(Frozen):
    """Runs side by side, the first to compare the others with."""

    schema_: Literal["edgeproof.comparison/1"] = Field(alias="schema", default="edgeproof.comparison/1")
    runs: Annotated[tuple[Side, ...], Field(min_length=2)]


@dataclass(frozen=True)
class Finished:
    """A finished run, read back; `images` are the NEEDED arrays of its evidence by name, None where there is none."""

    where: str
    report: Report
    images: dict[str, Any] | None


def read_finished(path: Path) -> Finished:
    """Read a run directory, or a report.json with or without the evidence beside it.

    Raises:
        BadData: the report is missing or damaged, or the evidence is damaged or of another run.

    """
    file = path / REPORT if path.is_dir() else path
    report = read_report(file)
    evidence = file.parent / EVIDENCE
    if file.name != REPORT or not evidence.exists():
        return Finished(str(path), report, None)
    try:
        with open_npz(evidence) as arrays:
            images = {name: arrays[name] for name in NEEDED}
    except (*UNREADABLE, KeyError) as error:
        raise BadData(f"{evidence} cannot be read: {error}", hint="name the --out of a finished verify") from None
    if any(array.shape != (report.data.n,) for array in images.values()):
        raise BadData(f"{evidence} is not of {file}: it has other images", hint="name the --out of a finished verify")
    return Finished(str(path), report, images)


def compare(runs: Sequence[Finished]) -> Comparison:
    """Put runs side by side; each after the first is matched with it."""
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
        device=str(report.device.get("cpu", "unknown") if accelerator in ("", "cpu") else accelerator),
        bundle_version=artifact.bundle_version,
        edgeproof=report.software.get("edgeproof"),
        verdict=report.verdict,
        data=report.data,
        threat_model=report.threat_model,
        figures=tuple(Figure(name=row.name, value=row.accuracy, ci95=row.ends) for row in accuracy_rows(report)),
    )


def _matched(run: Finished, first: Finished) -> Side:
    side = _side(run)
    if run.images is None or first.images is None:
        return side.model_copy(update={"unmatched": f"a report.json has no {EVIDENCE} beside it"})
    if run.report.request.data.sha256 != first.report.request.data.sha256:
        return side.model_copy(update={"unmatched": "the images are others"})
    index, here, there = np.intersect1d(run.images["index"], first.images["index"], return_indices=True)
    this, that = ({name: array[rows] for name, array in images.items()} for images, rows in
                  ((run.images, here), (first.images, there)))  # fmt: skip
    if not len(index):
        return side.model_copy(update={"unmatched": "no image is in both"})
    if not np.array_equal(this["label"], that["label"]):
        return side.model_copy(update={"unmatched": "the same images have other labels"})
    return side.model_copy(update={"against": match(this, that, run.report, first.report)})


def match(this: dict[str, Any], that: dict[str, Any], report: Report, first: Report) -> Against:
    """Compare two runs on the same images: the NEEDED arrays of each, row by row."""
    stood, stood_first = (images["broken_by"] == STANDS for images in (this, that))
    pairs = Both(this["index"], stood, stood_first).pairs()
    early = report.request.until_decided or first.request.until_decided
    attacked = report.robust_accuracy is not None and first.robust_accuracy is not None
    other = first.artifact
    against = f"{other.name} {other.precision} on {other.backend}/{other.provider}"
    return Against(
        images=len(stood),
        same_prediction=int((this["clean_prediction"] == that["clean_prediction"]).sum()),
        only_this=tuple(this["index"][stood & ~stood_first].tolist()) if attacked else (),
        only_first=tuple(this["index"][~stood & stood_first].tolist()) if attacked else (),
        worst_case=paired(against, pairs) if attacked and not early else None,
        notes=tuple(_notes(report, first, early=early, attacked=attacked)),
    )


def _notes(report: Report, first: Report, *, early: bool, attacked: bool) -> list[str]:
    notes = []
    if not attacked:
        notes.append("one of the two was not attacked within eps: no worst case to compare")
    elif early:
        notes.append("one of the two stopped early: no interval holds for the change")
    if report.threat_model != first.threat_model:
        notes.append(f"eps is {radius(report.threat_model.eps)}, in the first {radius(first.threat_model.eps)}")
    if report.request.all_attacks != first.request.all_attacks:
        mine, its = (", ".join(each.request.all_attacks) or "none" for each in (report, first))
        notes.append(f"the attacks are {mine}; in the first {its}" if mine != its else "the attacks' settings differ")
    if report.seed != first.seed:
        notes.append(f"the seed is {report.seed}, in the first {first.seed}")
    return notes
