"""From a network in memory to a bundle on disk: the whole export, in order."""

from __future__ import annotations

import copy
from contextlib import closing
from typing import TYPE_CHECKING

from export.bundle.slopes import untrue_slopes
from export.bundle.write import Claims, Precision, write_bundle
from export.limits import refuse_beyond_limits
from export.network.parity import measure_parity, reference_logits
from export.network.to_onnx import to_onnx
from export.precision.candidate import Candidate
from export.precision.table import PRECISIONS
from runtime.errors import BadModel
from runtime.files import check_new_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from numpy.typing import NDArray
    from torch import nn

    from export.precision.calibrate import Calibration
    from runtime.bundle.manifest import InputShape, Manifest
    from runtime.images.image_set import ImageSet


def export_network(
    network: nn.Module,
    *,
    shape: InputShape,
    evaluation: ImageSet,
    claims: Claims,
    out: Path,
    precisions: Sequence[str] = ("fp32",),
    calibration: Calibration | None = None,
    key: EllipticCurvePrivateKey | None = None,
) -> Manifest:
    """Export a classifier, derive gradient graphs, compare them with the network, and write the bundle.

    Args:
        network: images [B, C, H, W] in [0, 1] to logits [B, K], its normalisation inside; left as it is.
        shape: one image, as the network was trained on.
        evaluation: the images [N, C, H, W] that parity is measured on and that travel with the model.
        claims: name, class names, threat model, version, gate, figures and provenance.
        out: the bundle: a directory that does not exist yet, or is empty.
        precisions: names in `export.precision.table.PRECISIONS`.
        calibration: the images of int8, none of them in `evaluation`.
        key: signs it.

    Raises:
        UsageFault: `out` is not empty, or int8 has no calibration images.
        BadModel: the network cannot be exported, converted or differentiated, has another number of classes than
            it claims, or the graphs are further from it than the limits of their precision.
        BadData: the evaluation images or labels do not fit.

    """
    check_new_directory(out)
    evaluation.check_fits((shape.channels, shape.height, shape.width), claims.classes)
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    logits = reference_logits(frozen, evaluation)
    if logits.shape[1] != len(claims.classes):
        raise BadModel(f"the network has {logits.shape[1]} logits, but {len(claims.classes)} class names")
    with closing(Candidate(to_onnx(frozen, shape))) as single:
        made = {
            name: _made(name, single, frozen, evaluation, logits, calibration, claims.threat_model.eps)
            for name in precisions
        }
    return write_bundle(
        out,
        precisions=made,
        evaluation=evaluation,
        reference_logits=logits,
        claims=claims,
        key=key,
    )


def _made(
    name: str,
    single: Candidate,
    network: nn.Module,
    evaluation: ImageSet,
    logits: NDArray[np.float32],
    calibration: Calibration | None,
    eps: float,
) -> Precision:
    """Return one precision of the network exported in fp32, compared with the network."""
    made = PRECISIONS[name]
    candidate, calibrated = made.make(single, calibration)
    parity = measure_parity(network, candidate.session, evaluation, logits, made.limits)
    refuse_beyond_limits(name, parity)
    for untrue in untrue_slopes(candidate.session, evaluation, logits.shape[1], eps):
        raise BadModel(
            f"the gradient graph of {name} does not match this network: {untrue}",
            hint="look for a fine oscillation or a hard choice in the network; otherwise report this",
        )
    return Precision(candidate.forward.model, candidate.gradient, parity, calibrated)
