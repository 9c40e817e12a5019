"""From anyone's ONNX file to a bundle on disk: the whole of `pack`, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from export.bundle.write import Claims, Precision, write_bundle
from export.foreign.adapt import adapt
from export.foreign.model_file import read_model
from export.foreign.original import BATCH, Original, check_any_batch, measure_packed
from export.gradient import gradient_graph
from export.graph.constants import DEQUANTIZE, QUANTIZE
from export.graph.floating import computes_in, in_float32
from export.graph.passes import opset_of, prepare, to_bytes
from export.limits import refuse_beyond_limits
from export.precision.calibrate import Calibration, calibration_images
from export.precision.table import PRECISIONS, Choice
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import Packed
from runtime.errors import BadData, BadModel
from runtime.files import check_new_directory, sha256
from runtime.images.classes import numbers, refuse_another_count, refuse_duplicates
from runtime.images.find import find_images
from runtime.images.image_set import PLAIN_CHANNELS
from runtime.spec import LONGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from onnx import ModelProto

    from runtime.bundle.manifest import Calibrated, Manifest
    from runtime.commands.preparers import Wanted
    from runtime.images.image_set import ImageSet, Layout
    from runtime.session import Session
    from runtime.spec import ThreatModel

PROBABILITIES = "its outputs are probabilities that could not be turned back into logits: gradients may be masked"
NEAR_ONE = 1e-3
DATA = "--data"


@dataclass(frozen=True)
class Label:
    """What a bundle is called.

    Args:
        name: of the model, a `runtime.spec.Name`; made of the file's by default.
        version: of the bundle, rising.

    """

    name: str | None = None
    version: int = 1


def name_of(path: Path) -> str:
    """Return the name of a file as a model may be called: what is no letter, digit, '.', '_' or '-' becomes '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:LONGEST_NAME] or "model"


def pack_model(
    path: Path,
    out: Path,
    wanted: Wanted,
    *,
    threat_model: ThreatModel,
    label: Label,
    choice: Choice | None = None,
    calibration: str | None = None,
    key: EllipticCurvePrivateKey | None = None,
) -> Manifest:
    """Put a classifier behind edgeproof's interface, derive its gradient graph, and write the bundle.

    Args:
        path: the ONNX file.
        out: the bundle: a directory that does not exist yet, or is empty.
        wanted: images, classes, layout, size, normalisation, and whether a gradient graph is wanted.
        threat_model: what the model is judged against.
        label: names and version.
        choice: of precisions; by default the one that the model computes in.
        calibration: the images of int8, as `runtime.images.find.find_images` takes them, less those
            that are judged.
        key: signs the bundle.

    Raises:
        UsageFault: `out` is not empty, or int8 has no calibration images.
        BadModel: the file, or what is in it, cannot be used; the message names the node.
        BadData: the images or labels do not fit.

    """
    check_new_directory(out)
    original = read_model(path)
    choice = choice or Choice()
    images = _images(original, wanted)
    image = images.images.shape[1], images.images.shape[2], images.images.shape[3]
    for option, values in (("--mean", wanted.mean), ("--std", wanted.std)):
        if len(values) not in (0, 1, image[0]):
            raise BadData(f"{option} has {len(values)} values, the images {image[0]} channels", hint="one each, or one")
    adapted = adapt(original, image, layout=wanted.layout, mean=wanted.mean, std=wanted.std)
    classes = adapted.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = _class_names(wanted.classes, images, classes)
    images = images.numbered(names)
    images.check_fits(image, names)
    calibrated = None
    if calibration:
        others = _images(original, replace(wanted, data=calibration), "--calibration").numbered(names)
        used, held = calibration_images(others, images, choice.images)
        eps = threat_model.eps if wanted.gradient else None
        calibrated = Calibration(used, choice.method, choice.keep, held, eps)
    asked = Original(original, adapted, wanted.mean, wanted.std)
    precisions, said = {}, {}
    for name, made in _converted(adapted.model, choice.names, calibrated).items():
        compared, remarks = _compared(name, made.forward, asked, images, gradient=wanted.gradient)
        precisions[name] = replace(compared, calibration=made.calibration)
        said.update(dict.fromkeys([*made.changes, *remarks]))
    first, graphs = next(iter(precisions.items()))
    logits = _logits(OrtSession(to_bytes(graphs.forward), None, precision=first), images)
    if not adapted.cut and _are_probabilities(logits):
        said[PROBABILITIES] = None
    packed = Packed(
        file=path.name,
        sha256=sha256(path.read_bytes()),
        opset=opset_of(original),
        changes=(*adapted.changes, *said),
    )
    return write_bundle(
        out,
        precisions=precisions,
        evaluation=images,
        reference_logits=logits,
        claims=Claims(
            name=label.name or name_of(path),
            classes=names,
            threat_model=threat_model,
            preprocessing=wanted.size,
            version=label.version,
            ships=choice.ships,
            packed=packed,
        ),
        key=key,
    )


def _images(model: ModelProto, wanted: Wanted, option: str = DATA) -> ImageSet:
    """Read the images `option` names; `layout` is of the model too, so that it counts only where they do not tell."""

    def read(layout: Layout | None) -> ImageSet:
        return find_images(
            wanted.data,
            root=wanted.data_root,
            layout=layout,
            channels=_channels(model),
            preprocessing=wanted.size,
            size=wanted.size if option == DATA else None,
            option=option,
        )

    try:
        return read(None)
    except BadData:
        if wanted.layout is None:
            raise
        return read(wanted.layout)


def _channels(model: ModelProto) -> int | None:
    """Return the channels that a model takes, where its shape tells: a folder is read in grey or colour."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for info in model.graph.input:
        dims: list[int] = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        plain = {dims[place] for place in (1, -1) if len(dims) == 4} & set(PLAIN_CHANNELS)
        if info.name not in constants and len(plain) == 1:
            return plain.pop()
    return None


def _class_names(given: tuple[str, ...], images: ImageSet, logits: int) -> tuple[str, ...]:
    """Return the names given, those that the images have, or numbers.

    Raises:
        BadData: there are not as many as logits, or two are the same.

    """
    refuse_duplicates(given, "--classes")
    names = given or images.classes or numbers(logits)
    refuse_another_count("--classes" if given else images.name, names, logits)
    return names


def _own_precision(model: ModelProto) -> str:
    """Return the precision that a model computes in: int8 where it quantises anything."""
    if any(node.op_type in (QUANTIZE, DEQUANTIZE) for node in model.graph.node):
        return "int8"
    return "fp16" if computes_in(model) == "float16" else "fp32"


@dataclass(frozen=True)
class Converted:
    """A model in one precision, what that changed in words, and what set its ranges."""

    forward: ModelProto
    changes: tuple[str, ...] = ()
    calibration: Calibrated | None = None


def _converted(model: ModelProto, names: Sequence[str], calibration: Calibration | None) -> dict[str, Converted]:
    """Return the model cleaned up in each precision, its own by default."""
    own, kind = _own_precision(model), computes_in(model)
    if own == "int8" and set(names) - {own}:
        raise BadModel("the model is quantised: it has no fp32 or fp16 graph", hint="pack the model it was made of too")
    made = {}
    for name in names or (own,):
        if name == own != "fp32":
            made[name] = Converted(prepare(model))
            continue
        forward, calibrated = PRECISIONS[name].make(prepare(in_float32(model)), calibration)
        made[name] = Converted(forward, tuple(_changes(name, kind, calibrated)), calibrated)
    return made


def _changes(name: str, kind: str, calibrated: Calibrated | None) -> Iterator[str]:
    if name == "fp32":
        if kind != "float32":
            yield f"{kind} brought to float32"
        return
    if calibrated is None:
        yield f"{name} made of it by casts"
        return
    kept = f"; in fp16: {', '.join(calibrated.kept_fp16)}" if calibrated.kept_fp16 else ""
    data = calibrated.data
    yield f"{name} made of it, ranges by {calibrated.method} on {data.n} images of {data.name}{kept}"


def _compared(
    name: str, forward: ModelProto, original: Original, images: ImageSet, *, gradient: bool
) -> tuple[Precision, tuple[str, ...]]:
    """Return one precision with its gradient graph, compared with the original, and what there is to say of it."""
    derived = gradient_graph(forward) if gradient else None
    # By one thread, which takes each batch whole.
    rounded = check_any_batch(original, OrtSession(to_bytes(forward), None, precision=name, threads=1), images)
    session = OrtSession(to_bytes(forward), derived and to_bytes(derived), precision=name)
    parity, tied = measure_packed(original, session, images)
    refuse_beyond_limits(name, parity, tied)
    return Precision(forward, derived, parity), (*rounded, *tied)


def _logits(session: Session, images: ImageSet) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    return np.concatenate([session.logits(images.as_float(part)) for part in parts])


def _are_probabilities(logits: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bool:
    return bool((logits >= 0).all() and (abs(logits.sum(axis=1) - 1) < NEAR_ONE).all())
