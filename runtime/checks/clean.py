"""Whether a model sees the images as it was taught to: it must do better than a constant answer, and as expected.

No attack is at work here. Labels of another order, another normalisation, blue in place of red: each leaves a network
that answers at random or much worse, and a gate that passes by it says nothing.

A gate may fail all the same (`runtime.checks.claim.WEAK_EVIDENCE`). No more images stand an attack than are right
without one, so that the gate is missed on what was fed, whoever is at fault; and a quantisation that ruined its model
has to fail. Which of the two it was a run cannot know: the finding names where to look.
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
"""How far under the figure of a training's hold-out images others, in another precision, may lie without a fault."""


def check_clean(request: Request, label: Any, correct: Any) -> CheckResult:
    """Return `clean-above-chance` of the images judged: it blocks where a gate is asked for, and is a note elsewhere.

    Args:
        request: says what is expected, if anything is.
        label: int64 [N].
        correct: bool [N], classified correctly before any attack.

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
    """Whether the interval of clean accuracy lies above what a constant answer reaches."""
    low, _ = wilson(int(correct.sum()), len(label))
    return low > chance(label)


def chance(label: Any) -> float:
    """Return the share of the commonest class among images: what the best constant answer reaches, at least 1/K."""
    return float(np.bincount(label).max() / len(label))


def least_expected(clean: float, n: int) -> float:
    """Return what other images should give at least where n hold-out images of a training gave `clean`."""
    return max(wilson(round(clean * n), n)[0] - SLACK, 0.0)
