"""PGD adversarial training (Madry et al. 2018, arXiv 1706.06083): cross-entropy, searched and lowered; no teacher."""

from __future__ import annotations

from torch import Tensor

from pipeline.losses import cross_entropy
from pipeline.methods.method import Method, View
from runtime.spec import Frozen


class PgdAtOptions(Frozen):
    """PGD-AT has no fields of its own."""


def _cross_entropy(view: View, points: Tensor) -> Tensor:
    return cross_entropy(view.student(points), view.labels)


PGD_AT = Method(
    objective=_cross_entropy,
    loss=_cross_entropy,
    start="gaussian",
    search_mode="eval",
    reduction="batchmean",
    options=PgdAtOptions,
    needs_teacher=False,
    source="Madry et al., ICLR 2018, eq. 2.1; start and batch-norm mode as in the TRADES and AdaAD code",
)
