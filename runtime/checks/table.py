"""The table of checks: ways in which a model can look robust although the attacks only failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.checks.attacks import black_box, far_from_chance, fgsm_over_pgd, pgd_over_autoattack
from runtime.checks.blind import blind_control, square_alone
from runtime.checks.facts import Facts, Seen
from runtime.checks.gradient import agreement, enough_images, holds, jumps, parentless, steady, zero_gradient
from runtime.checks.output import fusion, randomised, softmax
from runtime.errors import Page
from runtime.records.report import CheckResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.records.report import Artifact
    from runtime.suite.outcome import Outcome


@dataclass(frozen=True)
class Check:
    """A check.

    Args:
        name: its name in the report.
        blocking: whether a finding keeps a gate from passing; without it, a finding is a note.
        look: examines the facts.
        hint: what to do about a finding.
        page: the page that says more about it.

    """

    name: str
    blocking: bool
    look: Callable[[Facts], Seen]
    hint: str
    page: Page | None = None

    def run(self, facts: Facts) -> CheckResult:
        """Return the result of the check."""
        state, message, blocking, hint = self.look(facts)
        blocking = self.blocking if blocking is None else blocking
        told = (hint or self.hint) + (f" (see {self.page})" if self.page else "")
        return CheckResult(check=self.name, blocking=blocking, state=state, message=message, hint=told)


def check(
    outcome: Outcome, *, classes: int, artifact: Artifact, gated: bool = False, accepts_blind_evidence: bool = False
) -> tuple[CheckResult, ...]:
    """Run every check on the outcome of the attacks; return nothing if no attack ran.

    NaN and infinite values need no check here, because they end a run at once (`NonFinite`).
    """
    if not outcome.attacks:
        return ()
    facts = Facts(outcome, classes, artifact, gated, accepts_blind_evidence)
    return tuple(each.run(facts) for each in CHECKS)


CHECKS = (
    Check(
        "randomised", True, randomised,
        "make the graph deterministic (no dropout, no random resizing, nothing by the size of the batch) and export it "
        "again: an attack on one draw says nothing about the next",
    ),
    Check(
        "softmax", True, softmax,
        "end the graph at its logits: a softmax leaves no gradient where the model is sure",
    ),
    Check(
        "zero-gradient", True, zero_gradient,
        "look for a step, a rounding or a saturated softmax in the graph: its gradient is masked, not robust",
        Page.MASKING,
    ),
    Check(
        "far-from-chance", True, far_from_chance,
        "the attacks cannot follow this gradient: look for rounding, clipping or huge logits, and add --attacks aa",
        Page.MASKING,
    ),
    Check(
        "gradient-holds", True, holds,
        "the gradient is not the artifact's: look for a dropped branch, a step, a ripple, or a rounding in the graph, "
        "and export again",
        Page.MASKING,
    ),
    Check(
        "gradient-steady", True, steady,
        "the gradient is shattered: look for a fine wave, a rounding or noise in the graph",
        Page.MASKING,
    ),
    Check(
        "margin-jumps", True, jumps,
        "the class changes where no slope leads: look for a step, a comparison or a hard choice in the graph",
        Page.MASKING,
    ),
    Check(
        "enough-images", True, enough_images,
        "judge more images: leave out --n, or give a larger set with --data",
    ),
    Check(
        "fgsm-over-pgd", True, fgsm_over_pgd,
        "the gradient misleads after the first step, as after single-step training; add --attacks aa",
    ),
    Check(
        "agreement", True, agreement,
        "the gradient graph belongs to another artifact: export both again from the same weights",
    ),
    Check(
        "pgd-over-aa", False, pgd_over_autoattack,
        "rely on aa, and do not choose between models by pgd",
    ),
    Check(
        "square-alone", True, square_alone,
        "the gradient hides adversarial points: the true accuracy may be lower still",
        Page.MASKING,
    ),
    Check(
        "blind-control", True, blind_control,
        "attacks with gradients miss adversarial points: the true accuracy is lower; --attacks aa says more",
        Page.MASKING,
    ),
    Check(
        "fusion", False, fusion,
        "the optimisations change answers: report this to ONNX Runtime, and verify the model as it ships",
    ),
    Check(
        "no-parent", False, parentless,
        "if a float model exists, pack or export it with --precision fp32,int8 and verify that bundle: two gradients "
        "find more",
    ),
    Check(
        "black-box-only", False, black_box,
        "add attacks with gradients, as --attacks aa: they find more; --accept-blind-evidence lets a gate pass without "
        "them, and the report says so",
    ),
)  # fmt: skip
"""The checks, in the order of the report."""
