"""int8 by ONNX Runtime's quantiser: explicit, symmetric, weights per channel, ranges from calibration images."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from export.graph.passes import prepare, to_bytes
from export.precision.half import WEIGHTED
from runtime.errors import BadData, BadModel, first_line
from runtime.files import sha256
from runtime.session import INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from export.graph.passes import Prepared
    from runtime.images.image_set import ImageSet

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""The methods that compute the range of a tensor from its values, by the name of ONNX Runtime's `CalibrationMethod`."""
IMAGES = 512
"""The number of calibration images, if the set has as many."""
BATCH = 32


@dataclass(frozen=True)
class Calibration:
    """The inputs for an int8 graph.

    Args:
        images: their activations set the ranges; none is in the evaluation set, see `calibration_images`.
        method: one of METHODS.
        keep: layers that stay in float16, by name. None: chosen by their cost (`export.precision.sensitivity`).
        held: images on which the cost of int8 is measured if `keep` is None; best neither trained on nor judged.
        eps: the radius of the attack that measures it. None: clean accuracy only, for graphs without a derivative.

    """

    images: ImageSet
    method: str = "minmax"
    keep: tuple[str, ...] | None = ()
    held: ImageSet | None = None
    eps: float | None = 8 / 255


def calibration_images(
    images: ImageSet, evaluation: ImageSet, count: int, seed: int = 0
) -> tuple[ImageSet, ImageSet | None]:
    """Draw `count` of the images by `seed`, and as many others, none of which is in the evaluation set.

    Returns:
        Images for calibration, as many as there are; and the others, None if there are none left.

    Raises:
        BadData: they have another shape than the evaluation images, or all are evaluation images.

    """
    channels, height, width = evaluation.images.shape[1:]
    images.check_shape((channels, height, width))
    judged = set(_digests(evaluation))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(images))
    kept: list[int] = []
    for start in range(0, len(order), count):
        part = order[start : start + count]
        digests = _digests(images.rows(part))
        kept += [int(row) for row, digest in zip(part, digests, strict=True) if digest not in judged]
        if len(kept) >= 2 * count:
            break
    if not kept:
        raise BadData(
            f"every image of {images.name} is in the evaluation set",
            hint="calibrate on other images, preferably training images: figures on images that were used are too good",
        )
    used, others = np.sort(kept[:count]), np.sort(kept[count : 2 * count])
    return images.rows(used), images.rows(others) if len(others) else None


def _digests(images: ImageSet) -> Iterator[str]:
    for start in range(0, len(images), BATCH):
        for image in np.round(255 * images.as_float(slice(start, start + BATCH))).astype(np.uint8):
            yield sha256(image.tobytes())


def in_int8(forward: Prepared, calibration: Calibration) -> Prepared:
    """Return a graph whose convolutions and matrix products are in int8, with QuantizeLinear and DequantizeLinear.

    Activations are quantised where such an operation reads them, with one symmetric scale. Weights have one scale per
    output channel and are stored as int8. Biases and everything else stay float32. TensorRT expects this, and fuses the
    rest itself.

    Args:
        forward: in float32.
        calibration: the images and the method.

    Raises:
        BadModel: there is nothing to quantise, or ONNX Runtime's quantiser fails.

    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if not any(node.op_type in WEIGHTED for node in forward.model.graph.node):
        raise BadModel("there is nothing to quantise: the model has no convolution and no matrix product")
    with tempfile.TemporaryDirectory() as directory, _silence():
        source, target = Path(directory) / "float.onnx", Path(directory) / "int8.onnx"
        source.write_bytes(to_bytes(forward.model))
        try:
            quantize_static(
                source,
                target,
                _reader(calibration.images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(WEIGHTED),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[METHODS[calibration.method]],
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    # An int32 bias is what TensorRT's parser refuses.
                    "QuantizeBias": False,
                    "MatMulConstBOnly": True,
                    "QDQKeepRemovableActivations": True,
                    "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
                    # Batch by batch: otherwise the activations of all images are held at once.
                    "CalibStridedMinMax": 1,
                },
            )
            quantized = onnx.load(target)
        except Exception as error:  # of whatever kind its kernels and its own checks raise
            raise BadModel(f"ONNX Runtime cannot quantise the model: {first_line(error)}") from error
    return prepare(quantized)


def _reader(images: ImageSet) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        """Batches of images, by number."""

        def __init__(self) -> None:
            self._left = iter(range(len(self)))

        def __len__(self) -> int:
            return -(-len(images) // BATCH)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(range(start_index, end_index))

        def get_next(self) -> dict[str, Any] | None:
            number = next(self._left, None)
            return None if number is None else {INPUT: images.as_float(slice(number * BATCH, (number + 1) * BATCH))}

    return Reader()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide the quantiser's prints and its advice in the root log from the user."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
