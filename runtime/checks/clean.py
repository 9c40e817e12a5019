"""Checks clean accuracy: it must exceed that of a constant answer, and reach what is expected.

The check finds images that are not fed as in training: labels in another order, another normalisation, blue in place of
red. Then the network answers almost at random, and a gate that passes proves nothing.

A gate may still fail (`runtime.checks.claim.WEAK_EVIDENCE`). Robust accuracy cannot exceed clean accuracy, so these
images miss the gate, whatever the reason; and a quantisation that ruined its model must fail. A run cannot tell the two
apart, so the finding says where to look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.records.report import CheckResult
from runtime.spec import Gate
from runtime.statistics import wilson
from runtime.words import interval, percent

if TYPE_CHECKING:
    from runtime.records.request import Request

SLACK = 0.05
"""The most by which clean accuracy may be below that of training's hold-out images, also in another precision."""


def check_clean(request: Request, label: Any, correct: Any) -> CheckResult:
    """Return the check `clean-above-chance`. It blocks if the run has a gate; otherwise it is a note.

    Args:
        request: has the expected clean accuracy, if there is one.
        label: int64 [N], of the images judged.
        correct: bool [N], whether each was classified correctly before any attack.

    """
    right, n = int(correct.sum()), len(label)
    ends, expected = wilson(right, n), request.expect_clean
    message = f"clean accuracy is {percent(right / n)} ({interval(ends)})"
    state: Literal["quiet", "found"] = "quiet"
    if not above_chance(label, correct):
        state = "found"
        message += f", and always answering the commonest class gives {percent(chance(label))}"
    elif expected is not None and ends[1] < expected:
        state, message = "found", f"{message}, and the model should reach at least {percent(expected)}"
    return CheckResult(
        check="clean-above-chance",
        blocking=request.gate != Gate(),
        state=state,
        message=message,
        hint="check the labels, the order of the classes (--classes), the normalisation (--mean, --std) and the order "
        "of the channels (--layout, --bgr); a few images, or images of one class, cannot show more; "
        "--expect-clean sets the accuracy that these images should give",
    )


def above_chance(label: Any, correct: Any) -> bool:
    """Return whether the interval of clean accuracy is above the accuracy of the best constant answer."""
    low, _ = wilson(int(correct.sum()), len(label))
    return low > chance(label)


def chance(label: Any) -> float:
    """Return the share of the commonest class, which is the accuracy of the best constant answer and at least 1/K."""
    return float(np.bincount(label).max() / len(label))


def least_expected(clean: float, n: int) -> float:
    """Return the least clean accuracy to expect of other images, if n hold-out images in training gave `clean`."""
    return max(wilson(round(clean * n), n)[0] - SLACK, 0.0)
