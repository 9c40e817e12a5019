"""A bundle in fp32 and int8, made of the stored one."""

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export.pack import Claims, Precision, write_bundle
from runtime.bundle import open_bundle
from runtime.commands import evaluation_images

AS_TENSORRT_TAKES_IT = {
    "quant_format": QuantFormat.QDQ,
    "per_channel": True,
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
}


class Images(CalibrationDataReader):
    """Images, one by one."""

    def __init__(self, images):
        self.rest = iter(images)

    def get_next(self):
        image = next(self.rest, None)
        return None if image is None else {"input": image[None]}


def add_int8(stored, out, place):
    """Write the bundle `stored` to `out` with its classifier in int8 too, which ships, attacked by fp32's gradient."""
    bundle = open_bundle(stored)
    manifest, fp32 = bundle.manifest, bundle.manifest.graphs["fp32"]
    images = evaluation_images(bundle)
    pixels = images.images.astype(np.float32) / 255
    quantize_static(stored / fp32.forward, place / "int8.onnx", Images(pixels), **AS_TENSORRT_TAKES_IT)
    int8 = onnx.load(place / "int8.onnx")
    claims = Claims(
        name=manifest.name, classes=manifest.classes, threat_model=manifest.threat_model, gate=manifest.gate,
        ships="int8",
    )  # fmt: skip
    gradient = onnx.load(stored / fp32.gradient)
    with np.load(stored / "reference.npz") as reference:
        logits = reference["logits"]
    write_bundle(
        out,
        precisions={
            "fp32": Precision(onnx.load(stored / fp32.forward), gradient, fp32.parity),
            "int8": Precision(int8, gradient),
        },
        evaluation=images,
        reference_logits=logits,
        claims=claims,
    )
