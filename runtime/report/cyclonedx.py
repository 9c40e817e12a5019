"""bom.cdx.json: the model and its figures as a CycloneDX 1.7 bill of materials for machine learning (docs/adr/0060).

Equal reports and bundles give equal bytes: the time is the report's, and the serial number is made from digests.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from runtime.bundle.described import network_of
from runtime.errors import BadInput
from runtime.files import sha256
from runtime.report.phrases import accuracy_rows, gate_words, verdict_of
from runtime.spec import to_json
from runtime.statistics import wilson
from runtime.words import radius

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle.manifest import Manifest
    from runtime.records.report import Report
    from runtime.report.account import Account
    from runtime.spec import DataRecord

SPEC = "1.7"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edgeproof:bom")
MODEL, EVALUATED_ON = "model", "data:evaluation"
Part = dict[str, Any]


def render(account: Account) -> str:
    """Return the document.

    Raises:
        BadInput: the named bundle is not the one that was judged.

    """
    report, manifest = account.report, account.manifest
    check_same(report, manifest)
    data = dict(_data(report, manifest))
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{_serial(report, manifest)}",
        "version": 1,
        "metadata": {
            "timestamp": report.started,
            "tools": {"components": [_library(name, version) for name, version in sorted(report.software.items())]},
            "component": _model(report, manifest, list(data)),
        },
        "components": [
            *(_component(ref, use, record) for ref, (use, record) in data.items()),
            *(_files(manifest) if manifest else ()),
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def check_same(report: Report, manifest: Manifest | None) -> None:
    """Raise `BadInput` unless the manifest, if one is named, lists the graph that was judged."""
    if manifest and report.artifact.sha256 not in {entry.sha256 for entry in manifest.files.values()}:
        raise BadInput(
            f"the bundle {manifest.name} version {manifest.version} does not contain the artifact that was judged",
            hint="name the bundle that was judged",
        )


def _serial(report: Report, manifest: Manifest | None) -> uuid.UUID:
    digests = [sha256(to_json(report)), *([sha256(manifest.to_json())] if manifest else [])]
    return uuid.uuid5(NAMESPACE, "".join(digests))


def _library(name: str, version: str) -> Part:
    return {"type": "library", "name": name, "version": version}


def _data(report: Report, manifest: Manifest | None) -> Iterator[tuple[str, tuple[str, DataRecord]]]:
    """Yield the image sets, each as its reference, its use and its record."""
    yield EVALUATED_ON, ("evaluation", report.data)
    if manifest is None:
        return
    if manifest.provenance:
        yield "data:training", ("training", manifest.provenance.training_data)
        if manifest.provenance.extra_data:
            yield "data:extra-training", ("training", manifest.provenance.extra_data)
    for precision, graph in sorted(manifest.graphs.items()):
        if graph.calibration:
            yield f"data:calibration:{precision}", (f"calibration of {precision}", graph.calibration.data)


def _component(ref: str, use: str, record: DataRecord) -> Part:
    description = f"{record.n} images, used for {use}"
    return {
        "type": "data",
        "bom-ref": ref,
        "name": record.name,
        "hashes": [_hash(record.sha256)],
        "data": [{"type": "dataset", "name": record.name, "description": description}],
    }


def _files(manifest: Manifest) -> Iterator[Part]:
    for name, entry in sorted(manifest.files.items()):
        size = [_property("size", str(entry.size))]
        yield {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "hashes": [_hash(entry.sha256)],
            "properties": size,
        }


def _model(report: Report, manifest: Manifest | None, data: list[str]) -> Part:
    artifact = report.artifact
    parents = list(_ancestors(manifest)) if manifest else []
    network = network_of(manifest.provenance) if manifest else None
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": artifact.name,
        **({"version": str(artifact.bundle_version)} if artifact.bundle_version else {}),
        "description": f"An image classifier in {artifact.precision}, as it was judged on {_where(report)}.",
        "hashes": [_hash(artifact.sha256)],
        **({"pedigree": {"ancestors": parents}} if parents else {}),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "image classification",
                **({"modelArchitecture": network} if network else {}),
                "datasets": [{"ref": ref} for ref in data],
                "inputs": [{"format": "float32 images in [0, 1]"}],
                "outputs": [{"format": f"float32 logits of {len(report.per_class)} classes"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": [*_accuracies(report), *_classes(report)]},
            "considerations": {"technicalLimitations": list(_limitations(report))},
        },
        "properties": [_property(name, value) for name, value in _facts(report).items()],
    }


def _ancestors(manifest: Manifest) -> Iterator[Part]:
    origin, packed = manifest.provenance, manifest.packed
    known = {
        "checkpoint": origin.checkpoint_sha256 if origin else None,
        "teacher": origin.teacher_sha256 if origin else None,
        packed.file if packed else "file": packed.sha256 if packed else None,
    }
    for name, digest in known.items():
        if digest:
            yield {"type": "machine-learning-model", "name": name, "hashes": [_hash(digest)]}


def _where(report: Report) -> str:
    return f"{report.artifact.backend}/{report.artifact.provider}"


def _accuracies(report: Report) -> Iterator[Part]:
    """Yield the accuracies with their 95 % intervals: clean, under every attack, and the worst case."""
    images = f"{report.data.n} images of {report.data.name}"
    threat = f"{report.threat_model.norm}, eps {radius(report.threat_model.eps)}"
    for row in accuracy_rows(report):
        slice_ = images if row.name == "clean" else f"{images}; {row.name}, {threat}"
        yield _metric("accuracy" if row.name == "clean" else "robust accuracy", slice_, row.accuracy, row.ends)


def _classes(report: Report) -> Iterator[Part]:
    """Yield clean and robust accuracy of each class, with an interval (Wilson) if the number of images was fixed."""
    for row in report.per_class:
        for kind, value in (("accuracy", row.clean), ("robust accuracy", row.robust)):
            if value is not None:
                fixed = report.sequential is None or kind == "accuracy"
                ends = wilson(round(value * row.n), row.n) if fixed else None
                yield _metric(kind, f"class {row.name}, {row.n} images", value, ends)


def _metric(kind: str, slice_: str, value: float, ends: tuple[float, float] | None) -> Part:
    interval = {"confidenceInterval": {"lowerBound": _figure(ends[0]), "upperBound": _figure(ends[1])}} if ends else {}
    return {"type": kind, "value": _figure(value), "slice": slice_, **interval}


def _figure(value: float) -> str:
    return f"{value:.6f}"


def _limitations(report: Report) -> Iterator[str]:
    yield "Robust accuracy is an upper bound: an attack that was not tried may find more."
    threat = f"{report.threat_model.norm} eps {radius(report.threat_model.eps)}"
    yield f"Nothing is said of perturbations beyond {threat}, nor of images unlike those of the evaluation."
    for each in report.warnings:
        yield f"{each.check}: {each.message}"


def _facts(report: Report) -> dict[str, str]:
    artifact = report.artifact
    return {
        "verdict": verdict_of(report),
        "gate": gate_words(report.gate),
        "precision": artifact.precision,
        "backend": _where(report),
        "request": report.request_sha256,
        **({"engine": artifact.engine_sha256} if artifact.engine_sha256 else {}),
        "device": str(report.device.get("board") or report.device.get("cpu") or "unknown"),
        "command": report.request.command,
    }


def _property(name: str, value: str) -> Part:
    return {"name": f"edgeproof:{name}", "value": value}


def _hash(digest: str) -> Part:
    return {"alg": "SHA-256", "content": digest}
