"""`edgeproof.export`: writes a network in memory as a bundle on disk, which any device can judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from edgeproof.arguments import existing, filled, names, names_arguments
from edgeproof.arrays import as_numpy, image_set
from edgeproof.networks import check_gradient, count_logits, in_eval_mode
from export.bundle.write import Claims
from export.foreign.images import class_names
from export.foreign.order import name_of
from export.network.export_network import export_network
from export.network.parity import reference_logits
from export.precision.calibrate import IMAGES, Calibration, calibration_images
from export.precision.table import PRECISIONS
from export.precision.table import precisions as known
from runtime.bundle.manifest import InputShape
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.signing import load_private_key
from runtime.errors import UsageFault
from runtime.spec import Frozen, Gate, Name, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from torch import nn

    from runtime.images.image_set import ImageSet, Layout

NO_GATE = Gate()


@names_arguments
def export(
    network: nn.Module,
    *,
    evaluation: tuple[Any, Any],
    out: str | PathLike[str],
    precisions: str | Sequence[str] = ("fp32",),
    calibration: Any = None,
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
        network: maps images float32 [B, C, H, W] in [0, 1] to logits [B, K]. Its normalisation is part of it. The
            network is not changed.
        evaluation: the images on which the bundle is judged, and their labels, as (x, y), in the forms that `verify`
            takes.
        out: the directory of the bundle. It must not exist, or be empty.
        precisions: any of fp32, fp16 and int8, as a list or as "fp32,int8".
        calibration: the images that set the ranges of int8, as x or (x, y); training images, for example. None of them
            may be in `evaluation`. The cost of int8 is measured on them against y; without y, against the network's
            own answers.
        keep_fp16: names of the layers that stay in float16 in int8; by default the layers that are most sensitive to
            int8, if plain int8 costs more than a point of accuracy.
        eps: the L-infinity radius that the bundle claims, on images in [0, 1].
        fail_under: gate: the least robust accuracy, from 0 to 1.
        max_drop: gate: the largest drop of robust accuracy from fp32, from 0 to below 1.
        name: the name of the model; by default that of its class.
        classes: the names of the classes in the order of the logits; numbers by default.
        layout: 'nchw' or 'nhwc', if the shape of the images allows both.
        version: the version of the bundle. Increase it with each release: a device refuses an older bundle.
        ships: the precision that goes to the device; by default the first of fp16, int8 and fp32 that is there.
        key: the file of a private key made by `edgeproof key new`, which signs the bundle.

    Returns:
        The opened bundle: its directory is `.path`, its manifest `.manifest`.

    Raises:
        UsageFault: `out` is not empty, a number is out of range, or int8 has no calibration images.
        BadModel: the network cannot be exported or differentiated, or a graph is too far from it.
        BadData: images or labels do not fit.

    """
    images = image_set(*_pair(evaluation, "evaluation"), name="evaluation", argument="evaluation", layout=layout)
    wanted = known(precisions.split(",") if isinstance(precisions, str) else precisions)
    if not wanted:
        raise UsageFault("precisions names none", hint=f"one or more of: {', '.join(PRECISIONS)}")
    if ships is not None and ships not in wanted:
        raise UsageFault(f"ships is {ships!r}, which is not among precisions", hint=f"one of: {', '.join(wanted)}")
    with_int8 = any(PRECISIONS[each].calibrated for each in wanted)
    if keep_fp16 is not None and not with_int8:
        raise UsageFault("keep_fp16 is for int8, which is not among precisions", hint="precisions=('fp32', 'int8')")
    calibrated = None
    if calibration is not None:
        used, held = _calibration_sets(calibration, network, images, layout)
        calibrated = Calibration(used, keep=None if keep_fp16 is None else tuple(keep_fp16), held=held, eps=eps)
    elif with_int8:
        raise UsageFault("int8 needs calibration images, which set its ranges", hint="calibration=x_train")
    return write_network(
        network,
        images,
        out=Path(out),
        precisions=wanted,
        calibration=calibrated,
        threat_model=filled(ThreatModel, {"eps": eps}),
        gate=filled(Gate, {"fail_under": fail_under, "max_drop": max_drop}),
        name=name,
        classes=names(classes),
        version=version,
        ships=ships,
        key=load_private_key(existing(key, "key")) if key is not None else None,
    )


def write_network(
    network: nn.Module,
    images: ImageSet,
    *,
    out: Path,
    threat_model: ThreatModel,
    precisions: Sequence[str] = ("fp32",),
    calibration: Calibration | None = None,
    gate: Gate = NO_GATE,
    name: str | None = None,
    classes: tuple[str, ...] = (),
    version: int = 1,
    ships: str | None = None,
    key: EllipticCurvePrivateKey | None = None,
) -> Bundle:
    """Write a network and its evaluation images as a bundle, and open it. `export` says what it takes and raises."""
    stated = filled(_Stated, {"name": name or name_of(Path(type(network).__name__)), "version": version})
    image = torch.from_numpy(images.as_float(slice(1)))
    logits = count_logits(network, image, "network")
    check_gradient(network, image)
    channels, height, width = (int(size) for size in images.images.shape[1:])
    export_network(
        network,
        shape=InputShape(channels=channels, height=height, width=width),
        evaluation=images,
        claims=Claims(
            name=stated.name,
            classes=class_names(classes, images, logits),
            threat_model=threat_model,
            version=stated.version,
            gate=gate,
            ships=ships,
        ),
        out=out,
        precisions=precisions,
        calibration=calibration,
        key=key,
    )
    return open_bundle(out)


class _Stated(Frozen):
    """Name and version, in the forms that a manifest can hold."""

    name: Name
    version: Annotated[int, Field(ge=1)]


def _calibration_sets(
    calibration: Any, network: nn.Module, evaluation: ImageSet, layout: Layout | None
) -> tuple[ImageSet, ImageSet | None]:
    """Draw calibration images and as many others; without labels, they get the classes that the network answers.

    Args:
        calibration: x, which may be a list of images, or (x, y).
        network: images [B, C, H, W] to logits [B, K].
        evaluation: images that the network takes.
        layout: 'nchw' or 'nhwc', if the shape of the images allows both.

    Returns:
        See `calibration_images`.

    Raises:
        BadData: see `image_set` and `calibration_images`.
        BadModel: the network does not take the images, or does not answer with logits.

    """
    if isinstance(calibration, tuple) or (isinstance(calibration, list) and len(calibration) == 2):
        given = image_set(*_pair(calibration, "calibration"), name="calibration", argument="calibration", layout=layout)
        return calibration_images(given, evaluation, IMAGES)
    x = as_numpy(calibration, "the images of calibration")
    unlabelled = np.zeros(x.shape[:1], np.int64)
    given = image_set(x, unlabelled, name="calibration", argument="calibration", layout=layout)
    used, held = calibration_images(given, evaluation, IMAGES)
    count_logits(network, torch.from_numpy(used.as_float(slice(1))), "network")
    return _labelled(used, network), _labelled(held, network) if held else None


def _labelled(images: ImageSet, network: nn.Module) -> ImageSet:
    with in_eval_mode(network):
        labels = reference_logits(network, images).argmax(axis=1)
    return replace(images, labels=labels, name=f"{images.name}, labelled by the network")


def _pair(images: Any, argument: str) -> tuple[Any, Any]:
    """Return the images and the labels of one argument (x, y).

    Raises:
        UsageFault: the argument is not a pair.

    """
    if not (isinstance(images, (tuple, list)) and len(images) == 2):
        raise UsageFault(f"{argument} is no pair of images and labels", hint=f"{argument}=(x, y)")
    return images[0], images[1]
