"""A bundle in fp32 and int8, made of the stored one."""

import numpy as np
import onnx

from export.bundle.write import Claims, Precision, write_bundle
from export.graph.passes import prepare
from export.precision.calibrate import Calibration
from export.precision.candidate import Candidate
from export.precision.table import PRECISIONS
from pipeline.data.sets import fashion_mini
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import open_bundle


def add_int8(stored, out):
    """Write the bundle `stored` to `out` with its classifier in int8 too, which ships."""
    bundle = open_bundle(stored)
    manifest, fp32 = bundle.manifest, bundle.manifest.graphs["fp32"]
    forward = onnx.load(stored / fp32.forward)
    calibration = Calibration(fashion_mini.load(out).train.rows(slice(0, 64)))
    int8, calibrated = PRECISIONS["int8"].make(Candidate(prepare(forward)), calibration)
    claims = Claims(
        name=manifest.name,
        classes=manifest.classes,
        threat_model=manifest.threat_model,
        gate=manifest.gate,
        ships="int8",
    )
    with np.load(stored / "reference.npz") as reference:
        logits = reference["logits"]
    write_bundle(
        out,
        precisions={
            "fp32": Precision(forward, onnx.load(stored / fp32.gradient), fp32.parity),
            "int8": Precision(int8.forward.model, int8.gradient, calibration=calibrated),
        },
        evaluation=evaluation_images(bundle),
        reference_logits=logits,
        claims=claims,
    )
