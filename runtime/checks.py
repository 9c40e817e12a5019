"""Checks before a figure is believed, and what they find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.report_schema import Finding

if TYPE_CHECKING:
    from runtime.suite import Outcome

MOST_ZERO_GRADIENTS = 0.01
"""Fraction of the correctly classified images that may be without a gradient."""

BLACK_BOX = Finding(
    check="black-box-only",
    blocking=False,
    message="no attack used a gradient: what stands is weak evidence, white-box attacks find more",
    hint="verify it without --gradient none, with --attacks aa",
)

MASKING = Finding(
    check="masking",
    blocking=False,
    message="the checks for masked gradients did not run: this version only looks for gradients that are zero",
    hint="compare pgd with cw, which should be close, and see that accuracy falls to chance as eps grows: --eps 64/255",
)


def findings(outcome: Outcome) -> tuple[Finding, ...]:
    """Return what is to be known before the figures are believed; nothing where no attack ran."""
    if not outcome.attacks:
        return ()
    if all(row.gradient == "none" for row in outcome.attacks):
        return (BLACK_BOX,)
    return (*zero_gradients(outcome), MASKING)


def zero_gradients(outcome: Outcome) -> tuple[Finding, ...]:
    """Return a blocking finding where too many images gave the attacks no gradient to follow."""
    correct, zero = int(outcome.evidence.correct.sum()), int(outcome.evidence.zero_gradient.sum())
    if zero <= MOST_ZERO_GRADIENTS * correct:
        return ()
    return (
        Finding(
            check="zero-gradient",
            blocking=True,
            message=f"the gradient is zero on {zero} of {correct} correctly classified images: the attacks were blind",
            hint="look for a step, a rounding or a saturated softmax in the graph: its gradient is masked, not robust",
        ),
    )
