"""Checks before a figure is believed: ways in which a model can look robust because its attackers are blind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from runtime.attacks import any_bounded
from runtime.records.report import CheckResult
from runtime.records.request import labelled
from runtime.statistics import Pairs, mcnemar, wilson
from runtime.words import percent, radius

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.records.report import Artifact, AttackRow
    from runtime.records.request import GradientSource
    from runtime.suite.campaign import Outcome

MOST_ZERO_GRADIENTS = 0.01
"""Fraction of the correctly classified images that may be without a gradient."""
TOLERATED = 1
"""So many always may, unless they are all: among few images one is no sign."""
SIGNIFICANT = 0.01
"""Of McNemar's test between FGSM and PGD."""
PGD_ABOVE_AA = 0.06
"""Honest networks reach 0.059."""
SQUARE_ALONE, SQUARE_LEAST = 0.002, 3
"""What Square may break after the white-box attacks: this fraction of the images, or so many."""
LEAST_AGREEMENT, LEAST_WITH_PARENT = 0.95, 0.8
"""Fractions of the points on which a gradient graph, its own or the parent's, must predict what the artifact does."""


class Facts(NamedTuple):
    """What the checks look at."""

    outcome: Outcome
    classes: int
    artifact: Artifact

    @property
    def called(self) -> str:
        """Return the artifact's precision, and the staircases that it holds."""
        kinds = ", ".join(self.artifact.facts.staircases)
        return f"{self.artifact.precision} with staircases ({kinds})" if kinds else self.artifact.precision

    @property
    def n(self) -> int:
        """Images judged."""
        return len(self.outcome.evidence)

    @property
    def gradient_from(self) -> list[GradientSource]:
        """Return whose gradients attacks within the ball followed."""
        return list(dict.fromkeys(row.gradient for row in self.white_box))

    @property
    def within(self) -> list[AttackRow]:
        """Return the rows of the attacks that keep to the ball: no other says anything of the figure."""
        return [row for row in self.outcome.attacks if any_bounded([row.name])]

    @property
    def white_box(self) -> list[AttackRow]:
        """Return those of them that used gradients."""
        return [row for row in self.within if row.gradient != "none"]


class Seen(NamedTuple):
    """How a check went, and what it saw; a message is one sentence without its full stop."""

    state: Literal["quiet", "found", "not run"]
    message: str


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        name: as the report calls it.
        blocking: whether what it finds leaves no verdict.
        look: at the facts.
        hint: what to do where it finds something.

    """

    name: str
    blocking: bool
    look: Callable[[Facts], Seen]
    hint: str

    def run(self, facts: Facts) -> CheckResult:
        """Return how it went."""
        state, message = self.look(facts)
        return CheckResult(check=self.name, blocking=self.blocking, state=state, message=message, hint=self.hint)


def check(outcome: Outcome, *, classes: int, artifact: Artifact) -> tuple[CheckResult, ...]:
    """Run every check on what the suite found; nothing where no attack ran.

    Values that are NaN or infinite are no matter of these: they end a run at once (`NonFinite`).
    """
    if not outcome.attacks:
        return ()
    facts = Facts(outcome, classes, artifact)
    return tuple(each.run(facts) for each in CHECKS)


def _seen(found: bool, message: str) -> Seen:
    return Seen("found" if found else "quiet", message)


def _not_run(attacks: str) -> Seen:
    return Seen("not run", f"not run: it needs {attacks}")


def randomised(facts: Facts) -> Seen:
    """Five passes over the same images must answer the same."""
    probe = facts.outcome.probe
    if probe is None:
        return Seen("not run", "not run: no image of the sample was judged")
    many = f"five passes over {probe.n} images gave the same answers on all but {probe.randomised}"
    return _seen(probe.randomised > 0, many)


def softmax(facts: Facts) -> Seen:
    """Logits that are probabilities have no gradient where the model is sure."""
    probe = facts.outcome.probe
    if probe is None:
        return Seen("not run", "not run: no image of the sample was judged")
    if probe.probabilities == probe.n:
        return Seen("found", f"the output is a softmax: on all {probe.n} images it is non-negative and sums to one")
    return Seen("quiet", "the output is no softmax")


def zero_gradient(facts: Facts) -> Seen:
    """An attack follows the gradient: it needs one."""
    if not facts.white_box:
        return _not_run("an attack that uses gradients")
    evidence = facts.outcome.evidence
    correct, zero = int(evidence.correct.sum()), int(evidence.zero_gradient.sum())
    whose = "the gradient is" if len(facts.gradient_from) == 1 else "own and parent's gradient are both"
    message = f"{whose} zero on {zero} of {correct} correctly classified images"
    blind = zero > max(MOST_ZERO_GRADIENTS * correct, TOLERATED) or zero == correct > 0
    return _seen(blind, message + (": the attacks were blind" if blind else ""))


def far_from_chance(facts: Facts) -> Seen:
    """Where the ball holds nearly every image, no classifier can be right more often than chance."""
    far = facts.outcome.far
    if far is None:
        return _not_run("an attack that uses gradients")
    low, _ = wilson(round(far.accuracy * far.n), far.n)
    chance = 1 / facts.classes
    message = (
        f"at eps {radius(far.eps)} PGD leaves an accuracy of {percent(far.accuracy)} "
        f"(low end {percent(low)}); chance is {percent(chance)}"
    )
    return _seen(low > chance, message)


def fgsm_over_pgd(facts: Facts) -> Seen:
    """One step cannot be stronger than ten, unless the gradient misleads."""
    fell, correct = facts.outcome.evidence.fell, facts.outcome.evidence.correct
    both = [(labelled("fgsm", led), labelled("pgd", led)) for led in facts.gradient_from]
    if not both or not fell.keys() >= set(sum(both, ())):
        return _not_run("fgsm and pgd")
    fgsm, pgd = (np.any([fell[name] for name in names], axis=0)[correct] for names in zip(*both, strict=True))
    only_fgsm, only_pgd = int((fgsm & ~pgd).sum()), int((pgd & ~fgsm).sum())
    p = mcnemar(Pairs(0, only_fgsm, only_pgd, 0))
    message = f"{only_fgsm} images fell to fgsm alone, {only_pgd} to pgd alone (exact McNemar p = {p:.2g})"
    return _seen(only_fgsm > only_pgd and p < SIGNIFICANT, message)


def pgd_over_autoattack(facts: Facts) -> Seen:
    """PGD far above AutoAttack says that fixed steps on cross-entropy do not find what is there."""
    fell = facts.outcome.evidence.fell
    pgd = [labelled("pgd", led) for led in facts.gradient_from]
    standard = [row.label for row in facts.outcome.attacks if row.cascade]
    if not pgd or not standard or not fell.keys() >= {*pgd, *standard}:
        return _not_run("pgd and aa")
    by_pgd, by_standard = (int(np.any([fell[name] for name in names], axis=0).sum()) for names in (pgd, standard))
    above = (by_standard - by_pgd) / facts.n
    return _seen(above > PGD_ABOVE_AA, f"accuracy under pgd is {100 * above:.1f} points above that under aa")


def square_alone(facts: Facts) -> Seen:
    """What a search without gradients breaks, the attacks with gradients should have found, whichever ran first."""
    fell = facts.outcome.evidence.fell
    if facts.artifact.facts.stepped:
        return Seen("not run", f"not run: {facts.called} has no useful gradient of its own")
    seen = [fell[row.label] for row in facts.white_box if row.label in fell]
    if "square" not in fell or not seen:
        return _not_run("square and an attack that uses gradients")
    alone = int((fell["square"] & ~np.any(seen, axis=0)).sum())
    most = max(SQUARE_ALONE * facts.n, SQUARE_LEAST)
    return _seen(alone > most, f"square broke {alone} images that stood the attacks with gradients")


def agreement(facts: Facts) -> Seen:
    """A gradient graph that predicts something else is the gradient of something else."""
    outcome, found, words = facts.outcome, False, []
    graphs = (
        ("the gradient graph predicts", outcome.agreement, LEAST_AGREEMENT),
        ("the parent's gradient graph predicts", outcome.parent_agreement, LEAST_WITH_PARENT),
    )
    for whose, seen, least in graphs:
        if seen is not None:
            _, high = wilson(seen.same_prediction, seen.n)
            found |= high < least
            words.append(f"{whose} as the artifact does on {seen.same_prediction} of {seen.n} points")
    if not words:
        return _not_run("an attack that uses gradients")
    return _seen(found, "; ".join(words))


def parentless(facts: Facts) -> Seen:
    """An artifact with steps is attacked best by the gradient of what it was made from."""
    if not facts.artifact.facts.stepped:
        return Seen("quiet", f"{facts.called} needs no other gradient than its own")
    if not facts.within:
        return _not_run("an attack within eps")
    alone = "parent" not in facts.gradient_from
    led = "its own straight-through gradient and by Square" if "own" in facts.gradient_from else "Square"
    message = f"no fp32 parent lent its gradient: {facts.called} was attacked by {led} alone"
    return _seen(alone, message if alone else "the gradient of its fp32 parent led attacks too")


def black_box(facts: Facts) -> Seen:
    """What stands a search without gradients says little."""
    if not facts.within:
        return _not_run("an attack within eps")
    blind = not facts.white_box
    return _seen(
        blind, "no attack used a gradient: what stands is weak evidence" if blind else "attacks with gradients ran too"
    )


CHECKS = (
    Check(
        "randomised", True, randomised,
        "make the graph deterministic (no dropout, no random resizing) and export it again: "
        "an attack on one draw says nothing of the next",
    ),
    Check(
        "softmax", True, softmax,
        "end the graph at its logits: a softmax leaves no gradient where the model is sure",
    ),
    Check(
        "zero-gradient", True, zero_gradient,
        "look for a step, a rounding or a saturated softmax in the graph: its gradient is masked, not robust",
    ),
    Check(
        "far-from-chance", True, far_from_chance,
        "the attacks cannot follow this gradient: look for rounding, clipping or huge logits, and add --attacks aa",
    ),
    Check(
        "fgsm-over-pgd", True, fgsm_over_pgd,
        "the gradient misleads after the first step, as after single-step training: add --attacks aa",
    ),
    Check(
        "agreement", True, agreement,
        "the gradient graph is not of this artifact: export both again, from the same weights",
    ),
    Check(
        "pgd-over-aa", False, pgd_over_autoattack,
        "believe aa; do not choose between models by pgd",
    ),
    Check(
        "square-alone", False, square_alone,
        "the gradient hides what a blind search finds: the true accuracy may be lower still",
    ),
    Check(
        "no-parent", False, parentless,
        "where it was made of a smooth model, verify a bundle that holds that too, as export --precision fp32,int8 "
        "makes it: both gradients find more",
    ),
    Check(
        "black-box-only", False, black_box,
        "attack with gradients too, as by --attacks aa: they find more",
    ),
)  # fmt: skip
"""In the order of the report."""
