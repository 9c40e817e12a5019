"""A gradient graph of operations that were written as simpler ones, compared with the original graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.foreign.original import BATCH, COMPARED
from runtime.errors import BadModel
from runtime.session import LossSpec
from runtime.words import percent

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from export.limits import Limits
    from export.precision.candidate import Candidate
    from runtime.images.image_set import ImageSet
    from runtime.session import Session


def measure_written(candidate: Candidate, images: ImageSet, limits: Limits) -> tuple[str, ...]:
    """Compare the logits of classifier and gradient graph, if operations were written as simpler ones.

    The classifier stays unchanged and judges what an attack finds. A gradient graph with other answers could only
    mislead the attack.

    Returns:
        How far they are apart, in words; nothing if no operation was replaced.

    Raises:
        BadModel: they are further apart than a precision may be from its model.

    """
    if candidate.gradient is None or candidate.differentiated is candidate.forward:
        return ()
    x = images.as_float(slice(0, COMPARED))
    own, written = (
        np.concatenate([answer(candidate.session, x[start : start + BATCH]) for start in range(0, len(x), BATCH)])
        for answer in (_own, _written)
    )
    error = float(np.abs(written - own).max()) / max(float(np.abs(own).max()), float(np.finfo(np.float32).tiny))
    agreement = float(np.mean(written.argmax(axis=1) == own.argmax(axis=1)))
    figures = f"logits within {error:.0e}, same prediction {percent(agreement, 2)} of {len(x)} images"
    operations = ", ".join(_written_out(candidate))
    if not (error <= limits.logit and agreement >= limits.agreement):
        raise BadModel(
            f"{operations} cannot be written out in operations that have a derivative: {figures}",
            hint="--gradient none judges it with Square alone, which is weak evidence",
        )
    return (f"its gradient is that of {operations} written out in simpler operations: {figures}",)


def _written_out(candidate: Candidate) -> list[str]:
    """Return the operations of the classifier that its written form does not have."""
    own, written = (
        {(node.domain, node.op_type) for node in prepared.model.graph.node}
        for prepared in (candidate.forward, candidate.differentiated)
    )
    return sorted(f"{domain}.{op}" if domain else op for domain, op in own - written)


def _own(session: Session, x: NDArray[np.float32]) -> NDArray[Any]:
    return np.asarray(session.logits(x))


def _written(session: Session, x: NDArray[np.float32]) -> NDArray[Any]:
    classes = session.logits(x[:1]).shape[1]
    label = np.eye(classes, dtype=np.float32)[np.zeros(len(x), int)]
    nothing = np.zeros_like(label)
    logits, _, _ = session.loss_gradient(x, LossSpec(np.zeros((len(x), 4), np.float32), label, nothing, nothing))
    return np.asarray(logits)
