"""Write a bundle: every file, with its digest in the manifest, completely or not at all."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from export.graph.passes import input_shape, opset_of, to_bytes
from export.precision.table import shipping
from runtime.bundle.manifest import (
    EVALUATION,
    MANIFEST,
    REFERENCE,
    SIGNATURE,
    Calibrated,
    FileEntry,
    Graph,
    InputShape,
    Manifest,
    Packed,
    Parity,
    Provenance,
    Reference,
)
from runtime.bundle.model_card import MODEL_CARD, model_card
from runtime.bundle.signing import sign
from runtime.files import new_directory, sha256, write_atomic
from runtime.graph.facts import staircases
from runtime.spec import DataRecord, Gate, ThreatModel
from runtime.words import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from numpy.typing import NDArray
    from onnx import ModelProto

    from runtime.images.image_set import ImageSet
    from runtime.images.preprocessing import Preprocessing

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member of an .npz, the earliest that zip supports: the same arrays give the same bytes."""


@dataclass(frozen=True)
class Claims:
    """The statements of a bundle beyond its files; see `runtime.bundle.manifest.Manifest`.

    Args:
        name: of the model.
        classes: their names, in the order of the logits.
        preprocessing: how pictures of other sizes are resized and cropped.
        threat_model: the attacks against which the model is judged.
        version: monotonic; a device refuses an older one.
        gate: the accuracy that a release must reach.
        reference: what the training run measured on its hold-out images.
        provenance: recipe, checkpoint, teacher and training data.
        packed: the original file of a model that was not trained here.
        ships: the precision that goes to the device, one of the bundle's; None: `export.precision.table.shipping`.
        created: ISO 8601, UTC.

    """

    name: str
    classes: tuple[str, ...]
    threat_model: ThreatModel
    preprocessing: Preprocessing | None = None
    version: int = 1
    gate: Gate = field(default_factory=Gate)
    reference: Reference | None = None
    provenance: Provenance | None = None
    packed: Packed | None = None
    ships: str | None = None
    created: str = field(default_factory=timestamp)


@dataclass(frozen=True)
class Precision:
    """One precision of a model: the classifier, the graph of its input gradient, their parity, its calibration."""

    forward: ModelProto
    gradient: ModelProto | None
    parity: Parity | None = None
    calibration: Calibrated | None = None


def write_bundle(
    out: Path,
    *,
    precisions: Mapping[str, Precision],
    evaluation: ImageSet,
    reference_logits: NDArray[np.float32],
    claims: Claims,
    key: EllipticCurvePrivateKey | None = None,
) -> Manifest:
    """Write a bundle and return its manifest.

    Args:
        out: a directory that does not exist yet, or is empty.
        precisions: by name (`fp32`); each becomes model.NAME.onnx and model.NAME.grad.onnx.
        evaluation: the images that travel with the model.
        reference_logits: float32 [N, K] of the training framework on them; for a packed model, its own.
        claims: the rest of the manifest.
        key: signs the bundle.

    Raises:
        UsageFault: `out` is not empty.
        BadData: the evaluation images or labels do not fit the model.

    """
    shape = input_shape(next(iter(precisions.values())).forward)
    evaluation.check_fits(shape, claims.classes)
    contents = {
        **_model_files(precisions),
        EVALUATION: _npz(images=evaluation.images, labels=evaluation.labels, ids=evaluation.ids),
        REFERENCE: _npz(logits=np.asarray(reference_logits, np.float32)),
    }
    draft = _manifest(precisions, shape, evaluation, claims, contents)
    contents[MODEL_CARD] = model_card(draft).encode()
    manifest = _manifest(precisions, shape, evaluation, claims, contents)
    contents[MANIFEST] = manifest.to_json()
    if key is not None:
        contents[SIGNATURE] = sign(claims.name, {name: sha256(data) for name, data in contents.items()}, key)
    with new_directory(out) as directory:
        for name, data in contents.items():
            write_atomic(directory / name, data)
    return manifest


def _manifest(
    precisions: Mapping[str, Precision],
    shape: tuple[int, int, int],
    evaluation: ImageSet,
    claims: Claims,
    contents: Mapping[str, bytes],
) -> Manifest:
    channels, height, width = shape
    return Manifest(
        name=claims.name,
        version=claims.version,
        created=claims.created,
        input=InputShape(channels=channels, height=height, width=width),
        preprocessing=claims.preprocessing,
        classes=claims.classes,
        threat_model=claims.threat_model,
        ships=claims.ships or shipping(precisions),
        graphs={name: _graph(name, precision) for name, precision in precisions.items()},
        evaluation=DataRecord(name=evaluation.name, n=len(evaluation), sha256=evaluation.sha256),
        gate=claims.gate,
        reference=claims.reference,
        provenance=claims.provenance,
        packed=claims.packed,
        files={name: FileEntry(sha256=sha256(data), size=len(data)) for name, data in contents.items()},
    )


def _graph(name: str, precision: Precision) -> Graph:
    forward, gradient = _file_names(name)
    return Graph(
        forward=forward,
        gradient=gradient if precision.gradient is not None else None,
        opset=opset_of(precision.forward),
        parity=precision.parity,
        calibration=precision.calibration,
        staircases=staircases(to_bytes(precision.forward)),
    )


def _model_files(precisions: Mapping[str, Precision]) -> dict[str, bytes]:
    files = {}
    for name, precision in precisions.items():
        forward, gradient = _file_names(name)
        files[forward] = to_bytes(precision.forward)
        if precision.gradient is not None:
            files[gradient] = to_bytes(precision.gradient)
    return files


def _file_names(precision: str) -> tuple[str, str]:
    return f"model.{precision}.onnx", f"model.{precision}.grad.onnx"


def _npz(**arrays: NDArray[Any]) -> bytes:
    """Return an .npz file that depends on the arrays only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, data.getvalue())
    return buffer.getvalue()
