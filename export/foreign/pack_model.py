"""From an ONNX file to a bundle on disk: the steps of `pack`, one state after the other, in the order below."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from export.adapt.adapt import adapt
from export.adapt.interface import BYTES
from export.adapt.model_file import model_sha256, read_model
from export.bundle.slopes import untrue_slopes
from export.bundle.write import Claims, Precision, write_bundle
from export.foreign.any_batch import check_any_batch
from export.foreign.images import check_normalisation, class_names, images_for
from export.foreign.order import name_of
from export.foreign.original import BATCH, Original, measure_packed
from export.foreign.precisions import in_precisions
from export.foreign.written import measure_written
from export.graph.passes import classes_of, opset_of
from export.limits import refuse_beyond_limits
from export.precision.calibrate import Calibration, calibration_images
from export.precision.table import PRECISIONS
from runtime.bundle.manifest import Packed
from runtime.files import check_new_directory
from runtime.images.uint8_grid import check_whole_levels
from runtime.terminal.log import log

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from numpy.typing import NDArray
    from onnx import ModelProto

    from export.adapt.adapt import Adapted
    from export.foreign.order import Order
    from export.foreign.precisions import Made
    from runtime.bundle.manifest import Manifest
    from runtime.images.image_set import ImageSet
    from runtime.session import Session

PROBABILITIES = "its outputs are probabilities that could not be turned back into logits: gradients may be masked"
NEAR_ONE = 1e-3


def pack_model(order: Order, out: Path, key: EllipticCurvePrivateKey | None = None) -> Manifest:
    """Give a classifier edgeproof's interface, derive its gradient graph, and write the bundle.

    Args:
        order: what to pack.
        out: the bundle: a directory that does not exist yet, or is empty.
        key: signs the bundle.

    Raises:
        UsageFault: `out` is not empty, int8 has no calibration images, or eps lies between the bytes that it takes.
        BadModel: the file, or what is in it, cannot be used; the message names the node.
        BadData: the images or labels do not fit.

    """
    check_new_directory(out)
    read = read_file_and_images(order)
    fitted = fit_to_images(read)
    drawn = draw_calibration(fitted)
    opened = open_original(drawn)
    converted = convert(opened)
    compared = compare(converted)
    return write(compared, out, key)


@dataclass(frozen=True)
class Read:
    """The original model and images."""

    order: Order
    model: ModelProto
    images: ImageSet


def read_file_and_images(order: Order) -> Read:
    """Read the ONNX file, and the images on which it will be judged."""
    model = read_model(order.path)
    return Read(order, model, images_for(model, order.wanted))


@dataclass(frozen=True)
class Fitted(Read):
    """The model with edgeproof's interface, in its own precision, with class names."""

    adapted: Adapted
    classes: tuple[str, ...]


def fit_to_images(read: Read) -> Fitted:
    """Give the model an interface for these images, and check that the labels are among its classes."""
    wanted, images = read.order.wanted, read.images
    image = images.images.shape[1], images.images.shape[2], images.images.shape[3]
    check_normalisation(wanted, image[0])
    adapted = adapt(
        read.model,
        image,
        layout=wanted.layout,
        mean=wanted.mean,
        std=wanted.std,
        bgr=wanted.bgr,
        output=wanted.output,
    )
    if adapted.interface.kind == BYTES:
        check_whole_levels(images, read.order.threat_model.eps)
    names = class_names(wanted.classes, images, classes_of(adapted.model))
    images = images.numbered(names)
    images.check_fits(image, names)
    return Fitted(**{**vars(read), "images": images}, adapted=adapted, classes=names)


@dataclass(frozen=True)
class Drawn(Fitted):
    """The calibration images, if there is an int8 graph."""

    calibration: Calibration | None


def draw_calibration(fitted: Fitted) -> Drawn:
    """Draw the calibration images; none of them is judged."""
    order, calibration = fitted.order, None
    if order.calibration:
        wanted = replace(order.wanted, data=order.calibration)
        others = images_for(fitted.model, wanted, "--calibration").numbered(fitted.classes)
        used, held = calibration_images(others, fitted.images, order.choice.images)
        eps = order.threat_model.eps if wanted.gradient else None
        calibration = Calibration(used, order.choice.method, order.choice.keep, held, eps)
    return Drawn(**vars(fitted), calibration=calibration)


@dataclass(frozen=True)
class Opened(Drawn):
    """The original model, for comparison."""

    original: Original


def open_original(drawn: Drawn) -> Opened:
    """Open the original model in ONNX Runtime."""
    wanted = drawn.order.wanted
    original = Original(drawn.model, drawn.adapted, wanted.mean, wanted.std, bgr=wanted.bgr)
    return Opened(**vars(drawn), original=original)


@dataclass(frozen=True)
class Converted(Opened):
    """The model in each requested precision, by name."""

    made: dict[str, Made]


def convert(opened: Opened) -> Converted:
    """Make the model's graph in each precision."""
    order = opened.order
    made = in_precisions(
        opened.adapted.model, order.choice.names, opened.calibration, differentiable=order.wanted.gradient
    )
    return Converted(**vars(opened), made=made)


@dataclass(frozen=True)
class Compared(Converted):
    """The precisions with their gradient graphs, each within its limits of the original.

    `logits` [N, K] are those of the first one. `changes` describes every change to the model, in words.
    """

    precisions: dict[str, Precision]
    logits: NDArray[np.float32]
    changes: tuple[str, ...]


def compare(converted: Converted) -> Compared:
    """Compare each precision with the original, and close its sessions."""
    precisions: dict[str, Precision] = {}
    said: dict[str, None] = {}
    first, *_ = converted.made
    _check_parent(converted)
    for name, made in converted.made.items():
        with closing(made.candidate):
            precisions[name], remarks = _compared(name, made, converted)
            said.update(dict.fromkeys([*made.changes, *remarks]))
            if name == first:
                logits = _logits(made.candidate.session, converted.images)
    if not converted.adapted.cut and _are_probabilities(logits):
        said[PROBABILITIES] = None
    changes = (*converted.adapted.changes, *said)
    return Compared(**vars(converted), precisions=precisions, logits=logits, changes=changes)


def write(compared: Compared, out: Path, key: EllipticCurvePrivateKey | None) -> Manifest:
    """Write the bundle and return its manifest."""
    order = compared.order
    return write_bundle(
        out,
        precisions=compared.precisions,
        evaluation=compared.images,
        reference_logits=compared.logits,
        claims=Claims(
            name=order.label.name or name_of(order.path),
            classes=compared.classes,
            threat_model=order.threat_model,
            preprocessing=order.wanted.size,
            version=order.label.version,
            ships=order.choice.ships,
            packed=Packed(
                file=order.path.name,
                sha256=model_sha256(order.path),
                opset=opset_of(compared.model),
                changes=compared.changes,
            ),
        ),
        key=key,
    )


def _check_parent(converted: Converted) -> None:
    """Check for mixing within a batch where no rounding hides it: in the fp32 graph from which others were made."""
    parent = next((made.parent for made in converted.made.values() if made.parent), None)
    if parent and "fp32" not in converted.made:
        check_any_batch("fp32", parent.forward, converted.images)


def _compared(name: str, made: Made, converted: Converted) -> tuple[Precision, tuple[str, ...]]:
    """Return one precision with its gradient graph, compared with the original, and remarks on it."""
    original, images = converted.original, converted.images
    candidate, limits = made.candidate, PRECISIONS[name].limits
    gradient = candidate.gradient
    rounded = check_any_batch(name, candidate.forward, images)
    parity, tied = measure_packed(original, candidate.session, images, limits)
    refuse_beyond_limits(name, parity, tied)
    written = measure_written(candidate, images, limits)
    untrue = untrue_slopes(candidate.session, images, len(converted.classes), converted.order.threat_model.eps)
    for remark in untrue:
        log.warning(f"do not rely on the gradient of {name}: {remark}")
    return Precision(candidate.forward.model, gradient, parity, made.calibration), (*rounded, *tied, *written, *untrue)


def _logits(session: Session, images: ImageSet) -> NDArray[np.float32]:
    parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    return np.concatenate([session.logits(images.as_float(part)) for part in parts])


def _are_probabilities(logits: NDArray[np.float32]) -> bool:
    return bool((logits >= 0).all() and (abs(logits.sum(axis=1) - 1) < NEAR_ONE).all())
