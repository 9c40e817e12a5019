"""What int8 costs, measured under attack; and which layers to leave in float16 where that is too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.precision.mixed import keep, layers, unquantized
from runtime.attacks import PGD
from runtime.backends.batch_halving import BatchHalving
from runtime.backends.ort import OrtSession
from runtime.progress import Silent, log
from runtime.suite.campaign import Campaign, Target, clean_pass

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

    from runtime.images.image_set import ImageSet

MOST = 0.01
"""Clean or robust accuracy that plain int8 may cost: one point."""
IMAGES = 512
"""Images that the cost is measured on, at most."""
RANKED = 128
"""Images that layers are ranked on."""
BATCH = 64


@dataclass(frozen=True)
class Accuracy:
    """Fractions of the images: right, and still right under PGD-10 with the graph's own gradient, if that was asked."""

    clean: float
    pgd: float | None

    def lost(self, other: Accuracy) -> float:
        """Return the larger loss of `other` against this, 0 where it loses nothing; 0.81 less 0.8 is 0.01, no more."""
        under_attack = 0.0 if self.pgd is None or other.pgd is None else self.pgd - other.pgd
        return round(max(self.clean - other.clean, under_attack, 0.0), 9)

    def __str__(self) -> str:
        """Return both in words."""
        return f"clean {self.clean:.1%}" + ("" if self.pgd is None else f", PGD-10 {self.pgd:.1%}")


def accuracy(model: ModelProto, images: ImageSet, eps: float | None) -> Accuracy:
    """Measure a graph by the attack that chooses checkpoints in training; clean alone without `eps`.

    Raises:
        BadModel: it has no gradient graph, and is to be attacked.

    """
    gradient = None if eps is None else to_bytes(gradient_graph(model))
    session = BatchHalving(OrtSession(to_bytes(model), gradient, precision="int8"))
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    target = Target(session, images, classes, BATCH, np.asarray)
    evidence = clean_pass(target, 0, Silent())
    pgd = None if eps is None else Campaign(target, evidence, eps, 0, Silent()).attack(PGD, 0).accuracy
    return Accuracy(float(evidence.correct.mean()), pgd)


def ranked(quantized: ModelProto, single: ModelProto, images: ImageSet) -> list[tuple[str, float]]:
    """Return the layers, the most sensitive first: each with the logit error of the graph that has it alone in int8.

    The error is the mean square over images and classes, on the first `RANKED` images.
    """
    x = images.as_float(slice(0, RANKED))
    exact = _logits(single, x)
    known = layers(single)
    errors = {}
    for name, value in known.items():
        others = set(known.values()) - {value}
        errors[name] = float(np.square(_logits(unquantized(quantized, single, others), x) - exact).mean())
    return sorted(errors.items(), key=lambda item: -item[1])


def chosen(quantized: ModelProto, single: ModelProto, images: ImageSet, eps: float | None) -> tuple[str, ...]:
    """Return the layers to keep in float16: none where int8 costs at most `MOST`, else the most sensitive.

    They are taken in order of `ranked`, 1, 2, 4 and so on, until what is left costs no more than that.

    Args:
        quantized: what `export.precision.calibrate.in_int8` made of `single`.
        single: the graph in float32.
        images: with their labels; the first `IMAGES` are used.
        eps: of PGD; None where there is no gradient to attack with.

    """
    images = images.rows(slice(0, IMAGES))
    exact, plain = (accuracy(model, images, eps) for model in (single, quantized))
    _say(images, exact, plain, "plain int8")
    if exact.lost(plain) <= MOST:
        return ()
    names = [name for name, _ in ranked(quantized, single, images)]
    count = 1
    while True:
        found = accuracy(keep(quantized, single, names[:count]), images, eps)
        _say(images, exact, found, f"int8 with {count} of {len(names)} layers in fp16")
        if exact.lost(found) <= MOST or count == len(names):
            return tuple(names[:count])
        count = min(2 * count, len(names))


def _logits(model: ModelProto, x: NDArray[np.float32]) -> NDArray[Any]:
    return np.asarray(OrtSession(to_bytes(model), None, precision="int8").logits(x))


def _say(images: ImageSet, exact: Accuracy, found: Accuracy, what: str) -> None:
    log(f"{what}, on {len(images)} images of {images.name}: {found} (fp32: {exact})")
