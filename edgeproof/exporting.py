"""`edgeproof.export`: a network in memory becomes a bundle on disk, which any device can judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgeproof.arguments import filled, names_arguments
from edgeproof.arrays import image_set
from edgeproof.networks import count_logits
from export.bundle.write import Claims
from export.foreign.images import class_names
from export.foreign.order import name_of
from export.network.export_network import export_network
from export.precision.calibrate import IMAGES, Calibration, calibration_images
from export.precision.table import precisions as known
from runtime.bundle.manifest import InputShape
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.signing import load_private_key
from runtime.errors import UsageFault
from runtime.spec import Gate, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from torch import nn

    from runtime.images.image_set import Layout


@names_arguments
def export(
    network: nn.Module,
    *,
    evaluation: tuple[Any, Any],
    out: str | PathLike[str],
    precisions: str | Sequence[str] = ("fp32",),
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
        evaluation: the images that judge the bundle and their labels, as (x, y); `verify` says which arrays it takes.
        out: the bundle: a directory that does not exist yet, or is empty.
        precisions: of fp32, fp16 and int8, as a list or as "fp32,int8".
        calibration: the images that set the ranges of int8 and their labels, as (x, y); training images, for example.
            They must not be among those of `evaluation`.
        keep_fp16: names of the layers that stay in float16 in int8; by default those that int8 costs most.
        eps: the L-infinity radius that the bundle claims to withstand.
        fail_under: the gate: the least robust accuracy, from 0 to 1.
        max_drop: the gate: the largest drop of robust accuracy from fp32.
        name: of the model; by default that of its class.
        classes: their names in the order of the logits; numbers by default.
        layout: 'nchw' or 'nhwc', where the shape of the images does not tell.
        version: of the bundle, rising: a device refuses to go back.
        ships: the precision that goes to the device; by default fp16, int8 or fp32, the first that is there.
        key: the file of a private key made by `edgeproof key new`, which signs the bundle.

    Returns:
        The bundle, opened: `.path`, and what it says of itself in `.manifest`.

    Raises:
        UsageFault: `out` is not empty, a number is out of range, or int8 has no calibration images with labels.
        BadModel: the network cannot be exported or differentiated, or a graph is too far from it.
        BadData: images or labels do not fit.

    """
    images = image_set(*_pair(evaluation, "evaluation"), name="evaluation", argument="evaluation", layout=layout)
    logits = count_logits(network, torch.from_numpy(images.as_float(slice(1))), "network")
    channels, height, width = (int(size) for size in images.images.shape[1:])
    calibrated = None
    if calibration is not None:
        given = image_set(*_pair(calibration, "calibration"), name="calibration", argument="calibration", layout=layout)
        used, held = calibration_images(given, images, IMAGES)
        calibrated = Calibration(used, keep=None if keep_fp16 is None else tuple(keep_fp16), held=held, eps=eps)
    claims = Claims(
        name=name or name_of(Path(type(network).__name__)),
        classes=class_names(tuple(classes), images, logits),
        threat_model=filled(ThreatModel, {"eps": eps}),
        version=version,
        gate=filled(Gate, {"fail_under": fail_under, "max_drop": max_drop}),
        ships=ships,
    )
    export_network(
        network,
        shape=InputShape(channels=channels, height=height, width=width),
        evaluation=images,
        claims=claims,
        out=Path(out),
        precisions=known(precisions.split(",") if isinstance(precisions, str) else precisions),
        calibration=calibrated,
        key=load_private_key(Path(key)) if key is not None else None,
    )
    return open_bundle(Path(out))


def _pair(images: Any, argument: str) -> tuple[Any, Any]:
    """Return images and labels that come as one argument.

    Raises:
        UsageFault: they are no pair.

    """
    if not (isinstance(images, (tuple, list)) and len(images) == 2):
        raise UsageFault(f"{argument} is no pair of images and labels", hint=f"{argument}=(x, y)")
    return images[0], images[1]
