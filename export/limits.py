"""How closely a graph must match the model from which it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import BadModel, Page
from runtime.words import percent

if TYPE_CHECKING:
    from runtime.bundle.manifest import Parity


@dataclass(frozen=True)
class Limits:
    """Limits that distinguish a failed export from rounding. A gate says how good a precision is.

    Args:
        logit: largest difference of a logit over the largest absolute logit; in float32 rounding alone gives 1e-6.
        agreement: fraction of images with the same first largest logit; rounding may separate images on a boundary.
        gradient: median over images of the largest difference over the largest absolute value of cross-entropy's
            gradient. A median: in deep networks the ReLU kinks of a few images flip within rounding, and their
            gradients differ visibly. 1 is a gradient that has nothing to do with the original's.

    """

    logit: float
    agreement: float
    gradient: float


HINTS = {
    "int8": "int8 loses too much of the model: calibrate on more images like those in use, try another "
    "--calibration-method, keep the most affected layers with --keep-fp16, or ship fp16"
}
"""What to do about a precision that is far from the network; for other precisions, this should not happen."""
ELSE = "look for layers that behave differently in evaluation mode, or report this"


def refuse_beyond_limits(precision: str, parity: Parity, said: tuple[str, ...] = ()) -> None:
    """Raise `BadModel` if a figure is beyond its limit or not a number; `said` may explain it."""
    gradient, most = parity.median_gradient_error, parity.median_gradient_error_limit
    held = {
        "logit error": parity.max_logit_error <= parity.max_logit_error_limit,
        "prediction agreement": parity.prediction_agreement >= parity.prediction_agreement_limit,
        "gradient error": gradient is None or most is None or gradient <= most,
    }
    broken = [name for name, holds in held.items() if not holds]
    if broken:
        raise BadModel(
            f"the exported {precision} graph is not the network: {', '.join(broken)} beyond the limit "
            f"({parity.max_logit_error:.2e}, {percent(parity.prediction_agreement, 2)}"
            + (")" if gradient is None else f", {gradient:.2e})"),
            hint="; ".join((*said, HINTS.get(precision, ELSE))),
            page=Page.PRECISION,
        )
