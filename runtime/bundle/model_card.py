"""MODEL_CARD.md: the manifest in words, for the person who receives the bundle.

A Hugging Face model card: metadata in YAML, with the training run's figures as `model-index`
(github.com/huggingface/hub-docs, modelcard.md), then Markdown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runtime.bundle.manifest import EVALUATION, SIGNATURE
from runtime.markdown import code, escape, table
from runtime.words import percent, radius

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle.manifest import Calibrated, Graph, Manifest, Packed, Parity, Reference

MODEL_CARD = "MODEL_CARD.md"
COMPUTES_IN: dict[str, str] = {
    "fp32": "float32",
    "fp16": "float16 from the first weights on",
    "int8": "int8 into convolutions and matrix products, float32 between, gradients straight through in float32",
}
"""How each precision computes, in a few words. Cards list the precisions in this order."""


def model_card(manifest: Manifest) -> str:
    """Return the card of a bundle: its manifest in words, without the card's own digest."""
    files = {name: entry for name, entry in manifest.files.items() if name != MODEL_CARD}
    others = manifest.model_copy(update={"files": files})
    return "\n".join(line for section in _sections(others) for line in [*section, ""])


def _graphs(manifest: Manifest) -> dict[str, Graph]:
    """Return the graphs by precision, in the order of COMPUTES_IN."""
    return {name: graph for known in COMPUTES_IN for name, graph in manifest.graphs.items() if name == known}


def _sections(manifest: Manifest) -> Iterator[list[str]]:
    yield _metadata(manifest)
    yield [f"# {manifest.name}, version {manifest.version}"]
    yield _what_it_is(manifest)
    yield _threat_model(manifest)
    yield _figures(manifest)
    yield _precisions(manifest)
    parities = _parities(manifest)
    if parities:
        yield _parity(parities)
    if manifest.provenance:
        yield _origin(manifest)
    if manifest.packed:
        yield _packed(manifest, manifest.packed)
    yield _verification(manifest)
    files = [(escape(name), str(entry.size), f"`{entry.sha256}`") for name, entry in sorted(manifest.files.items())]
    yield ["## Files", "", table(("file", "bytes", "sha256"), files)]


def _metadata(manifest: Manifest) -> list[str]:
    """Return the metadata as JSON, with non-printable characters escaped so that it is also YAML."""
    metadata: dict[str, Any] = {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "adversarial-robustness", "edgeproof"],
    }
    if manifest.reference:
        metadata["model-index"] = [{"name": manifest.name, "results": _results(manifest, manifest.reference)}]
    text = json.dumps(metadata, ensure_ascii=False, indent=2)
    signs = (sign if sign.isprintable() or sign == "\n" else f"\\U{ord(sign):08x}" for sign in text)
    return ["---", "".join(signs), "---"]


def _results(manifest: Manifest, reference: Reference) -> list[dict[str, Any]]:
    """Return the figures of training, and how often each precision agrees with the trained network."""
    data, threat = manifest.evaluation, manifest.threat_model
    trained_on = manifest.provenance.training_data.name if manifest.provenance else data.name
    accuracies = {
        "clean accuracy": reference.clean,
        f"accuracy under PGD, {threat.norm}, eps {radius(threat.eps)}": reference.pgd,
    }
    agreements = {
        f"same prediction as the trained network, {name}": parity.prediction_agreement
        for name, parity in _parities(manifest).items()
    }
    return [
        _result(trained_on, f"{reference.n} hold-out images{_as_judged(manifest)}", "accuracy", accuracies),
        *([_result(data.name, f"{data.n} images", "agreement", agreements)] if agreements else []),
    ]


def _result(data: str, images: str, kind: str, figures: dict[str, float]) -> dict[str, Any]:
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": f"{data}, {images}", "type": data},
        "metrics": [{"name": name, "type": kind, "value": value} for name, value in figures.items()],
    }


def _parities(manifest: Manifest) -> dict[str, Parity]:
    return {name: graph.parity for name, graph in _graphs(manifest).items() if graph.parity}


def _what_it_is(manifest: Manifest) -> list[str]:
    image = manifest.input
    return [
        f"An image classifier as an ONNX graph ({', '.join(_graphs(manifest))}), exported {escape(manifest.created)}.",
        f"Input: `input`, float32, [batch, {image.channels}, {image.height}, {image.width}] in [0, 1]; "
        "the normalisation is inside the graph.",
        *([f"Pictures were {manifest.preprocessing.in_words()}."] if manifest.preprocessing else []),
        f"Output: `logits` of {len(manifest.classes)} classes, in this order: {escape(', '.join(manifest.classes))}.",
    ]


def _threat_model(manifest: Manifest) -> list[str]:
    eps = manifest.threat_model.eps
    return [
        "## Threat model",
        "",
        f"To be judged against changes of at most {radius(eps)} in every pixel (L-infinity {eps:.5f}), "
        "by an attacker who knows the weights. Nothing is claimed of other norms, larger changes, or images unlike "
        "the training data."
        + (" How it was trained is in the recipe, in manifest.json." if manifest.provenance else ""),
    ]


def _as_judged(manifest: Manifest) -> str:
    """Return ', rounded to int8' if training measured the network so, as with [int8] in a recipe; else ''."""
    return ", rounded to int8" if manifest.provenance and manifest.provenance.recipe.get("int8") else ""


def _figures(manifest: Manifest) -> list[str]:
    reference = manifest.reference
    if reference is None:
        return ["## Figures", "", "None were recorded when this model was trained."]
    return [
        "## Figures",
        "",
        f"Measured in training ({escape(reference.checkpoint)} checkpoint) on {reference.n} hold-out images"
        f"{_as_judged(manifest)}:",
        "",
        table(("", "accuracy"), (("clean", percent(reference.clean)), ("PGD", percent(reference.pgd)))),
        "",
        "PGD gives an upper bound on robust accuracy: stronger attacks find more. What counts is what "
        "`edgeproof verify` measures on the device.",
    ]


def _precisions(manifest: Manifest) -> list[str]:
    rows = [
        (
            name,
            COMPUTES_IN[name],
            _ranges(graph.calibration),
            str(manifest.files[graph.forward].size),
            "ships" if name == manifest.ships else "",
        )
        for name, graph in _graphs(manifest).items()
    ]
    return [
        "## Precisions",
        "",
        "The precision is in the graph; `input` and `logits` are float32 in each.",
        "",
        table(("precision", "computes in", "ranges", "bytes", ""), rows),
        *_staircases(manifest),
    ]


def _staircases(manifest: Manifest) -> list[str]:
    """Return lines that name the nodes through which the gradient is a surrogate."""
    stepped = {name: graph.staircases for name, graph in _graphs(manifest).items() if graph.staircases}
    if not stepped:
        return []
    lines = (f"- {name}: {', '.join(map(code, nodes))}" for name, nodes in stepped.items())
    return ["", "The gradient goes straight through these nodes, which answer in steps: it is a surrogate.", "", *lines]


def _ranges(calibration: Calibrated | None) -> str:
    if calibration is None:
        return ""
    kept = f"; in fp16: {', '.join(calibration.kept_fp16)}" if calibration.kept_fp16 else ""
    return escape(f"{calibration.method} on {calibration.data.n} images{kept}")


def _parity(parities: dict[str, Parity]) -> list[str]:
    rows = [
        (
            name,
            f"{p.max_logit_error:.1e} (at most {p.max_logit_error_limit:.0e})",
            f"{percent(p.prediction_agreement, 2)} (at least {percent(p.prediction_agreement_limit)})",
            _gradient_error(p),
        )
        for name, p in parities.items()
    ]
    return [
        "## Against what it was made of",
        "",
        "On the evaluation images, relative to the largest value:",
        "",
        table(("precision", "largest logit error", "same prediction", "median gradient error"), rows),
    ]


def _gradient_error(parity: Parity) -> str:
    if parity.median_gradient_error is None:
        return "not compared"
    return f"{parity.median_gradient_error:.1e} (at most {parity.median_gradient_error_limit:.0e})"


def _packed(manifest: Manifest, packed: Packed) -> list[str]:
    return [
        "## Origin",
        "",
        f"Packed from {escape(packed.file)} (sha256 `{packed.sha256}`, opset {packed.opset}); "
        "how it was trained is not known.",
        "What was done to its graph:",
        "",
        *(f"- {escape(change)}" for change in packed.changes or ("nothing but renaming and folding constants",)),
        *_calibrations(manifest),
    ]


def _origin(manifest: Manifest) -> list[str]:
    origin = manifest.provenance
    assert origin is not None
    trained_on = (("training data", origin.training_data), ("extra training data", origin.extra_data))
    return [
        "## Origin",
        "",
        *(
            f"- {what}: {escape(data.name)}, {data.n} images, sha256 `{data.sha256}`"
            for what, data in trained_on
            if data is not None
        ),
        *_calibrations(manifest),
        f"- recipe: sha256 `{origin.recipe_sha256}` (resolved, in manifest.json)",
        f"- checkpoint: sha256 `{origin.checkpoint_sha256}`",
        *([f"- trained on through int8 from: sha256 `{origin.start_sha256}`"] if origin.start_sha256 else []),
        f"- teacher: {f'sha256 `{origin.teacher_sha256}`' if origin.teacher_sha256 else 'none'}",
        f"- software: {escape(', '.join(f'{name} {version}' for name, version in sorted(origin.software.items())))}",
    ]


def _calibrations(manifest: Manifest) -> list[str]:
    return [
        f"- calibration of {name}: {escape(used.data.name)}, {used.data.n} images, sha256 `{used.data.sha256}`"
        for name, graph in _graphs(manifest).items()
        if (used := graph.calibration)
    ]


def _verification(manifest: Manifest) -> list[str]:
    return [
        "## Verify it",
        "",
        "On the device, where edgeproof is installed, without the training framework:",
        "",
        "    edgeproof verify BUNDLE",
        "",
        f"checks every file against manifest.json and attacks the {manifest.ships} graph itself on the "
        f"{manifest.evaluation.n} images of {EVALUATION}. The digests tell damage, not who made it: where the bundle "
        f"holds {SIGNATURE}, `--trust public.pem` checks that too, with the publisher's key.",
    ]
