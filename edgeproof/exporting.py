"""`edgeproof.export`: a network in memory becomes a bundle on disk, which any device can judge."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproof.arrays import image_set
from export.bundle.write import Claims
from export.foreign.images import class_names
from export.foreign.order import name_of
from export.network.export_network import export_network
from export.network.parity import reference_logits
from export.precision.calibrate import IMAGES, Calibration, calibration_images
from runtime.bundle.manifest import InputShape
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.signing import load_private_key
from runtime.errors import BadModel, UsageFault, first_line
from runtime.spec import Gate, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from torch import nn

    from runtime.images.image_set import ImageSet, Layout


def export(
    network: nn.Module,
    *,
    evaluation: tuple[Any, Any],
    out: str | PathLike[str],
    precisions: Sequence[str] = ("fp32",),
    calibration: tuple[Any, Any] | None = None,
    keep_fp16: Sequence[str] | None = None,
    eps: float = 8 / 255,
    fail_under: float | None = None,
    max_drop: float | None = None,
    name: str | None = None,
    classes: Sequence[str] = (),
    layout: Layout | None = None,
    version: int = 1,
    ships: str | None = None,
    key: str | PathLike[str] | None = None,
) -> Bundle:
    """Export a PyTorch classifier with the graph of its input gradient, compare both with it, and write the bundle.

    Args:
        network: images float32 [B, C, H, W] in [0, 1] to logits [B, K], its normalisation inside. It is left as it is.
        evaluation: the images that the bundle is judged on, and their labels, as `verify` takes x and y.
        out: the bundle: a directory that does not exist yet, or is empty.
        precisions: of fp32, fp16 and int8.
        calibration: the images of int8 and their labels, as `evaluation`; best those trained on, and none of it.
        keep_fp16: layers of int8 that stay in float16, by name; by default chosen by what int8 costs.
        eps: the L-infinity radius that the bundle claims to withstand.
        fail_under: the gate: the least robust accuracy, from 0 to 1.
        max_drop: the gate: the largest drop of robust accuracy from fp32.
        name: of the model; by default that of its class.
        classes: their names in the order of the logits; numbers by default.
        layout: 'nchw' or 'nhwc', where the shape of the images does not tell.
        version: of the bundle, rising: a device refuses to go back.
        ships: the precision that goes to the device; by default fp16, int8 or fp32, the first that is there.
        key: a private key of `edgeproof key new`, which signs the bundle.

    Returns:
        The bundle, opened: `.path`, and what it says of itself in `.manifest`.

    Raises:
        UsageFault: `out` is not empty, or int8 has no calibration images, or they have no labels.
        BadModel: the network cannot be exported or differentiated, or a graph is too far from it.
        BadData: images or labels do not fit.

    """
    images = image_set(*evaluation, name="evaluation", layout=layout)
    logits = count_logits(network, images)
    channels, height, width = (int(size) for size in images.images.shape[1:])
    calibrated = None
    if calibration is not None:
        if not isinstance(calibration, tuple):
            raise UsageFault(
                "the calibration images have no labels, on which what int8 costs is measured",
                hint="calibration=(x, y)",
            )
        used, held = calibration_images(image_set(*calibration, name="calibration", layout=layout), images, IMAGES)
        calibrated = Calibration(used, keep=None if keep_fp16 is None else tuple(keep_fp16), held=held, eps=eps)
    claims = Claims(
        name=name or name_of(Path(type(network).__name__)),
        classes=class_names(tuple(classes), images, logits),
        threat_model=ThreatModel(eps=eps),
        version=version,
        gate=Gate(fail_under=fail_under, max_drop=max_drop),
        ships=ships,
    )
    export_network(
        network,
        shape=InputShape(channels=channels, height=height, width=width),
        evaluation=images,
        claims=claims,
        out=Path(out),
        precisions=precisions,
        calibration=calibrated,
        key=load_private_key(Path(key)) if key is not None else None,
    )
    return open_bundle(Path(out))


def count_logits(network: nn.Module, images: ImageSet) -> int:
    """Return how many logits a network gives.

    Raises:
        BadModel: it does not take the images, or gives no row of logits for each.

    """
    try:
        logits = reference_logits(copy.deepcopy(network).eval(), images.rows(slice(1)))
    except RuntimeError as error:
        shape = tuple(images.images.shape[1:])
        raise BadModel(f"the network does not take images of {shape}: {first_line(error)}") from error
    if logits.ndim != 2:
        raise BadModel(f"the network answers an image with shape {logits.shape}", hint="logits, [B, K]")
    return int(logits.shape[1])
