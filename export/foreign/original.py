"""The original model, run by ONNX Runtime: the packed graph must give the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.adapt.interface import BYTES, TAKEN
from export.adapt.softmax import CUTS, ONE_LOGIT, ties
from export.graph.passes import refuse_infinite, refuse_nan, to_bytes
from runtime.backends.providers import open_plain
from runtime.bundle.manifest import Parity
from runtime.errors import BadModel, first_line
from runtime.graph.facts import graph_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from export.adapt.adapt import Adapted
    from export.limits import Limits
    from runtime.images.image_set import ImageSet
    from runtime.session import Session

COMPARED = 512
"""The number of evaluation images on which the original runs."""
BATCH = 64


class Original:
    """A model with its own input, layout and batch, which is given images in [0, 1] as edgeproof keeps them.

    Args:
        model: as it was read.
        adapted: the graph that was made from it.
        mean: subtracted from each channel of its input, and
        std: then divides it; empty if it takes the images unchanged.
        bgr: whether it takes blue first.

    Raises:
        BadModel: ONNX Runtime cannot load it.

    """

    def __init__(
        self, model: ModelProto, adapted: Adapted, mean: Sequence[float], std: Sequence[float], *, bgr: bool = False
    ) -> None:
        self._interface, self._output, self.cut, self._bgr = adapted.interface, adapted.output, adapted.cut, bgr
        self._mean, self._std = (np.asarray(values, np.float32).reshape(-1, 1, 1) for values in (mean, std))
        content = to_bytes(model)
        facts = graph_facts(content)
        self._alone = facts.ranges_of_batch
        try:
            self._session = open_plain(content, facts)
        except Exception as error:  # ONNX Runtime's own errors share no base but this one
            raise BadModel(f"ONNX Runtime cannot load the model: {first_line(error)}", hint="export it again") from None

    def outputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return its own outputs [B, K] to images [B, C, H, W], in its own batches."""
        batch = self._interface.batch
        size = 1 if self._alone or batch == 0 else batch or BATCH
        rows = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            full = np.resize(part, (batch, *x.shape[1:])) if batch else part
            rows.append(self._run(full)[: len(part)])
        return np.concatenate(rows)

    def own(self, logits: NDArray[np.float32]) -> NDArray[Any]:
        """Return the original's answer that corresponds to the packed graph's `logits`."""
        return CUTS[self.cut].own(logits) if self.cut else logits

    def scores(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return one number per class [B, K] from the original's answer; the largest is the predicted class."""
        return CUTS[self.cut].scores(outputs) if self.cut else outputs

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        own = self._interface
        if own.kind == BYTES:
            x = np.rint(255 * x)
        if self._mean.size:
            x = x - self._mean
        if self._std.size:
            x = x / self._std
        if self._bgr:
            x = x[:, ::-1]
        if own.layout == "nhwc":
            x = x.transpose(0, 2, 3, 1)
        taken = x.reshape(own.shape if own.batch == 0 else (len(x), *own.shape))
        feeds = {own.name: np.ascontiguousarray(taken, TAKEN[own.kind])}
        try:
            (answer,) = self._session.run([self._output], feeds)
        except Exception as error:  # as above
            raise BadModel(f"the model fails on these images: {first_line(error)}", hint="check --layout") from None
        refuse_nan(answer, "outputs")
        refuse_infinite(answer, "outputs")
        return np.asarray(answer, np.float32).reshape(len(x), -1)


def measure_packed(
    original: Original, session: Session, images: ImageSet, limits: Limits
) -> tuple[Parity, tuple[str, ...]]:
    """Compare a session over the packed graph with the original, on the first `COMPARED` images.

    Outputs are compared after the part that was cut off. Predictions are compared as each would be deployed: the packed
    graph's largest logit with the original's first largest output. They may differ if a saturated end makes several
    outputs equal.

    Returns:
        The figures, and remarks on them.

    """
    x = images.as_float(slice(0, COMPARED))
    logits = np.concatenate([session.logits(x[start : start + BATCH]) for start in range(0, len(x), BATCH)])
    expected = original.outputs(x)
    if original.cut == ONE_LOGIT:
        refuse_probability(expected)
    scores = original.scores(expected)
    tied = ties(scores) if original.cut else 0
    parity = Parity(
        max_logit_error=_error(original.own(logits), expected),
        max_logit_error_limit=limits.logit,
        prediction_agreement=float(np.mean(logits.argmax(axis=1) == scores.argmax(axis=1))),
        prediction_agreement_limit=limits.agreement,
    )
    said = f"the original's output is saturated in {tied} of {len(x)} images: its largest numbers are equal there"
    return parity, (said,) if tied else ()


def refuse_probability(outputs: NDArray[Any]) -> None:
    """Raise `BadModel` if one number [B, 1], taken as a logit, has the same sign for every image.

    A probability, or a score from 0 to 100, is therefore not taken as a logit.
    """
    if (outputs >= 0).all() or (outputs <= 0).all():
        raise BadModel(
            "the model's one number has the same sign for every image: it may be a probability or a score, not a logit",
            hint="end the model at its logit, or at the Sigmoid after it, and judge it on images of both classes",
        )


def _error(outputs: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference over the largest absolute value."""
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(outputs - expected).max()) / scale
