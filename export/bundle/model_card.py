"""MODEL_CARD.md: the manifest in words, for the person who receives the bundle.

A Hugging Face model card: metadata in YAML, with the training run's figures as `model-index`
(github.com/huggingface/hub-docs, modelcard.md), then Markdown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from export.precision.table import PRECISIONS
from runtime.bundle.manifest import EVALUATION
from runtime.words import percent, radius

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.bundle.manifest import Calibrated, Manifest, Packed, Parity, Reference


def model_card(manifest: Manifest) -> str:
    """Return the card of a bundle whose manifest lists every other file."""
    return "\n".join(line for section in _sections(manifest) for line in [*section, ""])


def _sections(manifest: Manifest) -> Iterator[list[str]]:
    yield _metadata(manifest)
    yield [f"# {manifest.name}, version {manifest.version}"]
    yield _what_it_is(manifest)
    yield _threat_model(manifest)
    yield _figures(manifest.reference)
    yield _precisions(manifest)
    parities = _parities(manifest)
    if parities:
        yield _parity(parities)
    if manifest.provenance:
        yield _origin(manifest)
    if manifest.packed:
        yield _packed(manifest, manifest.packed)
    yield _verification(manifest)
    yield ["## Files", "", "| file | bytes | sha256 |", "|---|---|---|"] + [
        f"| {name} | {entry.size} | `{entry.sha256}` |" for name, entry in sorted(manifest.files.items())
    ]


def _metadata(manifest: Manifest) -> list[str]:
    return [
        "---",
        "library_name: onnx",
        "pipeline_tag: image-classification",
        "tags:",
        "- onnx",
        "- adversarial-robustness",
        "- edgeproof",
        *(_model_index(manifest, manifest.reference) if manifest.reference else []),
        "---",
    ]


def _model_index(manifest: Manifest, reference: Reference) -> list[str]:
    origin = manifest.provenance
    data = origin.training_data.name if origin else manifest.evaluation.name
    threat = manifest.threat_model
    return [
        "model-index:",
        f"- name: {_text(manifest.name)}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {_text(f'{data}, {reference.n} hold-out images')}",
        f"      type: {_text(data)}",
        "    metrics:",
        "    - name: clean accuracy",
        "      type: accuracy",
        f"      value: {reference.clean}",
        f"    - name: {_text(f'accuracy under PGD, {threat.norm}, eps {radius(threat.eps)}')}",
        "      type: accuracy",
        f"      value: {reference.pgd}",
        *_agreement(manifest),
    ]


def _agreement(manifest: Manifest) -> list[str]:
    """Return a second result of the model-index: how far each precision predicts what the trained network does."""
    parities, data = _parities(manifest), manifest.evaluation
    if not parities:
        return []
    lines = [
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {_text(f'{data.name}, {data.n} images')}",
        f"      type: {_text(data.name)}",
        "    metrics:",
    ]
    for name, parity in parities.items():
        lines += [
            f"    - name: {_text(f'same prediction as the trained network, {name}')}",
            "      type: agreement",
            f"      value: {parity.prediction_agreement}",
        ]
    return lines


def _parities(manifest: Manifest) -> dict[str, Parity]:
    return {name: graph.parity for name, graph in manifest.graphs.items() if graph.parity}


def _text(text: str) -> str:
    """Return a text as YAML, whatever is in it: JSON's strings are YAML's, but for signs that are not printed."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in quoted)


def _what_it_is(manifest: Manifest) -> list[str]:
    image = manifest.input
    return [
        f"An image classifier as an ONNX graph ({', '.join(manifest.graphs)}), exported {manifest.created}.",
        f"Input: `input`, float32, [batch, {image.channels}, {image.height}, {image.width}] in [0, 1]; "
        "the normalisation is inside the graph.",
        *([f"Pictures were {manifest.preprocessing.in_words()}."] if manifest.preprocessing else []),
        f"Output: `logits` of {len(manifest.classes)} classes, in this order: {', '.join(manifest.classes)}.",
    ]


def _threat_model(manifest: Manifest) -> list[str]:
    eps = manifest.threat_model.eps
    return [
        "## Threat model",
        "",
        f"To be judged against changes of at most {radius(eps)} in every pixel (L-infinity {eps:.5f}), "
        "by an attacker who knows the weights. Nothing is claimed of other norms, larger changes, or images unlike "
        "the training data. How it was trained is in the recipe, in manifest.json.",
    ]


def _figures(reference: Reference | None) -> list[str]:
    if reference is None:
        return ["## Figures", "", "None were recorded when this model was trained."]
    return [
        "## Figures",
        "",
        f"Measured in training ({reference.checkpoint} checkpoint) on {reference.n} hold-out images:",
        "",
        "| | accuracy |",
        "|---|---|",
        f"| clean | {percent(reference.clean)} |",
        f"| PGD | {percent(reference.pgd)} |",
        "",
        "PGD gives an upper bound on robust accuracy: stronger attacks find more. What counts is what "
        "`edgeproof verify` measures on the device.",
    ]


def _precisions(manifest: Manifest) -> list[str]:
    return [
        "## Precisions",
        "",
        "The precision is in the graph; `input` and `logits` are float32 in each.",
        "",
        "| precision | computes in | ranges | bytes | |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {PRECISIONS[name].says if name in PRECISIONS else name} | {_ranges(graph.calibration)} "
            f"| {manifest.files[graph.forward].size} | {'ships' if name == manifest.ships else ''} |"
            for name, graph in manifest.graphs.items()
        ),
        *_staircases(manifest),
    ]


def _staircases(manifest: Manifest) -> list[str]:
    """Say through which nodes the gradient is a surrogate."""
    stepped = {name: graph.staircases for name, graph in manifest.graphs.items() if graph.staircases}
    if not stepped:
        return []
    lines = (f"- {name}: {', '.join(f'`{node}`' for node in nodes)}" for name, nodes in stepped.items())
    return ["", "The gradient goes straight through these nodes, which answer in steps: it is a surrogate.", "", *lines]


def _ranges(calibration: Calibrated | None) -> str:
    if calibration is None:
        return ""
    kept = f"; in fp16: {', '.join(calibration.kept_fp16)}" if calibration.kept_fp16 else ""
    return f"{calibration.method} on {calibration.data.n} images{kept}"


def _parity(parities: dict[str, Parity]) -> list[str]:
    rows = [
        f"| {name} | {p.max_logit_error:.1e} (at most {p.max_logit_error_limit:.0e}) "
        f"| {percent(p.prediction_agreement, 2)} (at least {percent(p.prediction_agreement_limit)}) "
        f"| {_gradient_error(p)} |"
        for name, p in parities.items()
    ]
    return [
        "## Against what it was made of",
        "",
        "On the evaluation images, relative to the largest value:",
        "",
        "| precision | largest logit error | same prediction | median gradient error |",
        "|---|---|---|---|",
        *rows,
    ]


def _gradient_error(parity: Parity) -> str:
    if parity.median_gradient_error is None:
        return "not compared"
    return f"{parity.median_gradient_error:.1e} (at most {parity.median_gradient_error_limit:.0e})"


def _packed(manifest: Manifest, packed: Packed) -> list[str]:
    return [
        "## Origin",
        "",
        f"Packed from {packed.file} (sha256 `{packed.sha256}`, opset {packed.opset}); how it was trained is not known.",
        "What was done to its graph:",
        "",
        *(f"- {change}" for change in packed.changes or ("nothing but renaming and folding constants",)),
        *_calibrations(manifest),
    ]


def _origin(manifest: Manifest) -> list[str]:
    origin = manifest.provenance
    assert origin is not None
    data = origin.training_data
    return [
        "## Origin",
        "",
        f"- training data: {data.name}, {data.n} images, sha256 `{data.sha256}`",
        *_calibrations(manifest),
        f"- recipe: sha256 `{origin.recipe_sha256}` (resolved, in manifest.json)",
        f"- checkpoint: sha256 `{origin.checkpoint_sha256}`",
        f"- teacher: {f'sha256 `{origin.teacher_sha256}`' if origin.teacher_sha256 else 'none'}",
        f"- software: {', '.join(f'{name} {version}' for name, version in sorted(origin.software.items()))}",
    ]


def _calibrations(manifest: Manifest) -> list[str]:
    return [
        f"- calibration of {name}: {used.data.name}, {used.data.n} images, sha256 `{used.data.sha256}`"
        for name, graph in manifest.graphs.items()
        if (used := graph.calibration)
    ]


def _verification(manifest: Manifest) -> list[str]:
    return [
        "## Verify it",
        "",
        "On the device, with `pip install edgeproof` and without the training framework:",
        "",
        "    edgeproof verify BUNDLE --trust public.pem",
        "",
        f"attacks the {manifest.ships} graph itself on the {manifest.evaluation.n} images of {EVALUATION}, "
        "after checking the signature with the publisher's key and every file against manifest.json. Without --trust "
        "the digests alone are checked: they tell damage, not who made it.",
    ]
