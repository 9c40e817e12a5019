"""Checks of the gradient that attacks follow: it must not vanish, and must be the artifact's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.checks.facts import Facts, Seen, not_run, seen
from runtime.checks.power import HOLDS, JUMPS, STEADY, powers_of_tests
from runtime.statistics import fewest_beyond, wilson
from runtime.suite.scrutiny import most_tolerated, most_unrelated
from runtime.words import percent

if TYPE_CHECKING:
    from runtime.records.measurements import GradientTest

MOST_ZERO_GRADIENTS = 0.01
"""The largest fraction of the correctly classified images whose gradient may be zero."""
TOLERATED = 1
"""So many images may always have a zero gradient, unless that is all of them: of few images, one shows nothing."""
COARSEST, COARSEST_OF_A_SURROGATE = 0.5, 0.9
"""A gate cannot pass if a test could miss a false gradient on more than this share of the images.

A surrogate is false on every image to some degree, so it has a limit of its own.
"""
LEAST_AGREEMENT, LEAST_WITH_PARENT = 0.95, 0.8
"""The least fraction of points on which the artifact's own gradient graph, or the parent's, must predict its class."""
MOST_SPARED, MOST_SPARED_QUANTISED, LEVEL = 0.01, 0.05, 0.01
"""If a process alone classifies more images correctly than this share explains at LEVEL, the check finds something."""
APART = (
    "{judge} judges and {lender} computes the gradient, but their answers differ, so the attacks miss. Look for "
    "another model, preprocessing or precision on the judge, or choose another --gradient-backend"
)
"""The hint if judge and lender are two engines."""
OF_BYTES = (
    "no parent is missing: a gradient that goes straight through that rounding is the one of the model without it; "
    "--attacks aa finds more"
)
"""The hint for a float model that takes bytes and has no staircases except those that `pack` adds before it."""


def zero_gradient(facts: Facts) -> Seen:
    """An attack that follows a gradient needs one that is not zero."""
    if not facts.white_box:
        return not_run("an attack that uses gradients")
    evidence = facts.outcome.evidence
    correct, zero = int(evidence.correct.sum()), int(evidence.zero_gradient.sum())
    whose = "the gradient is" if len(facts.gradient_from) == 1 else "own and parent's gradient are both"
    message = f"{whose} zero on {zero} of {correct} correctly classified images"
    blind = zero > max(MOST_ZERO_GRADIENTS * correct, TOLERATED) or zero == correct > 0
    return seen(blind, message + (": the attacks were blind" if blind else ""))


def holds(facts: Facts) -> Seen:
    """Over a fraction of eps, the artifact must change as the gradient predicts."""
    test = facts.outcome.gradient_test
    if test is None:
        return _no_gradient()
    return seen(untrue(test) is not None, f"{_apart(test)}; {_power(test, HOLDS)}")


def untrue(test: GradientTest) -> str | None:
    """Return in words on how many images a gradient is false, if they are too many; else None.

    A surrogate is not a derivative. It counts as false only on images where it is unrelated to the artifact.
    """
    if test.surrogate:
        return _apart(test) if (test.unrelated or 0) > most_unrelated(test.n) else None
    return _apart(test) if max(test.apart_near or 0, test.apart_far) > most_tolerated(test.n) else None


def _apart(test: GradientTest) -> str:
    if test.surrogate:
        far = f"it fails to predict it over eps/2 on {test.apart_far}, which is allowed"
        if test.unrelated is None:
            return f"the gradient is a surrogate, asked on {test.n} images; {far}"
        return f"the surrogate gradient is unrelated to the artifact on {test.unrelated} of {test.n} images; {far}"
    return (
        f"the gradient fails to predict the artifact over eps/8 on {test.apart_near} of {test.n} images, "
        f"and over eps/2 on {test.apart_far}"
    )


def steady(facts: Facts) -> Seen:
    """A useful gradient keeps its direction if the image changes a little."""
    test = facts.outcome.gradient_test
    if test is None:
        return _no_gradient()
    if test.unsteady is None:
        return _surrogate()
    words = f"the gradient turns within eps/4 on {test.unsteady} of {test.n} images"
    return seen(test.unsteady > most_tolerated(test.n), f"{words}; {_power(test, STEADY)}")


def jumps(facts: Facts) -> Seen:
    """Between two images of different classes, the margin must pass through zero, unless there is a hidden step.

    The margin of a staircase may have many steps, but on most lines none that is half of the whole change.
    """
    test = facts.outcome.gradient_test
    if test is None:
        return _no_gradient()
    if test.jumps is None or test.lines is None:
        return _surrogate()
    if not test.lines:
        return not_run("images of two classes")
    where = f"on {test.jumps} of {test.lines} lines between two images"
    if test.surrogate:
        return seen(test.jumps > most_unrelated(test.lines), f"the class changes in one step {where}")
    words = f"the margin jumps where the class changes {where}; {_power(test, JUMPS)}"
    return seen(test.jumps > most_tolerated(test.lines), words)


def _no_gradient() -> Seen:
    return not_run("an attack with the artifact's own gradient, and an image of the sample that no attack broke")


def _surrogate() -> Seen:
    return Seen("not run", "not run: the artifact answers in steps, so its gradient is a surrogate")


def _power(test: GradientTest, check: str) -> str:
    """Return words for the smallest share of images on which a test would notice a false gradient."""
    (share,) = (power.share for power in powers_of_tests(test) if power.check == check)
    return f"the test notices a false gradient on {percent(share)} of the images"


def enough_images(facts: Facts) -> Seen:
    """If few images survived, tests of the gradient could miss too much."""
    test = facts.outcome.gradient_test
    if not facts.gated:
        return Seen("not run", "not run: no gate was asked for")
    if test is None:
        return _no_gradient()
    coarsest = max(powers_of_tests(test), key=lambda power: power.share)
    allowed = COARSEST_OF_A_SURROGATE if test.surrogate else COARSEST
    if coarsest.share <= allowed:
        words = f"{coarsest.check} tested {coarsest.n} images that no attack broke: {_power(test, coarsest.check)}"
        return Seen("quiet", words)
    missed = (
        f"could miss a false gradient on up to {percent(coarsest.share)} of them; a gate allows {percent(allowed, 0)}"
    )
    return Seen("found", f"too few images: {coarsest.check} tested {coarsest.n} that no attack broke, and {missed}")


def agreement(facts: Facts) -> Seen:
    """A gradient graph that predicts other classes than the artifact is the gradient of another model.

    A judge process that quantises by itself differs from the bundle's graph as an int8 graph differs from its parent.
    """
    outcome, found, words, lender = facts.outcome, False, [], facts.artifact.lender
    the_graph, the_parents = (
        f"{whose} gradient graph{f' on {lender}' if lender else ''}" for whose in ("the", "the parent's")
    )
    by_itself = facts.artifact.judge_command is not None and facts.artifact.facts.quantised
    least_own = LEAST_WITH_PARENT if by_itself else LEAST_AGREEMENT
    graphs = (
        (f"{the_graph} predicts", outcome.agreement, least_own),
        (f"{the_parents} predicts", outcome.parent_agreement, LEAST_WITH_PARENT),
    )
    for whose, answers, least in graphs:
        if answers is not None:
            _, high = wilson(answers.same_prediction, answers.n)
            found |= high < least
            words.append(f"{whose} as the artifact does on {answers.same_prediction} of {answers.n} points")
            if answers.near is not None and answers.images:
                _, high = wilson(answers.near, answers.images)
                found |= high < LEAST_AGREEMENT
                words.append(
                    f"its logits match the judge's up to rounding on {answers.near} of {answers.images} images"
                )
    if facts.artifact.judge_command is not None:
        beyond, what = _spared(facts)
        found |= beyond
        words.append(what)
    if not words:
        return not_run("an attack that uses gradients")
    judge = f"{facts.artifact.backend}/{facts.artifact.provider}"
    return seen(found, "; ".join(words), hint=APART.format(judge=judge, lender=lender) if lender else None)


def _spared(facts: Facts) -> tuple[bool, str]:
    """Return whether a judge process was correct on too many images where the bundle's graph is not, and in words.

    The process answers each point before it is compared. So it cannot use the knowledge of which points are compared.
    """
    evidence, quantised = facts.outcome.evidence, facts.artifact.facts.quantised
    n, spared = int(evidence.correct.sum()), int((evidence.spared & evidence.robust).sum())
    most = fewest_beyond(n, MOST_SPARED_QUANTISED if quantised else MOST_SPARED, LEVEL) - 1
    words = f"where ONNX Runtime's CPU misclassifies a point of a search, the judge held {spared} of {n} images right"
    return spared > most, f"{words}, and rounding explains {most}"


def parentless(facts: Facts) -> Seen:
    """The best attacks on an artifact with steps follow the gradient of its parent."""
    if not facts.artifact.facts.stepped:
        return Seen("quiet", f"{facts.called} needs no other gradient than its own")
    if not facts.within:
        return not_run("an attack within eps")
    alone = "parent" not in facts.gradient_from
    led = "its own straight-through gradient and Square" if "own" in facts.gradient_from else "Square"
    if not alone:
        return seen(False, "attacks also followed the gradient of its fp32 parent")
    attacked = f"only {led} attacked {facts.called}"
    kind = facts.artifact.facts
    if kind.takes_bytes and not kind.quantised and set(kind.staircases) <= {"Cast", "Round"}:
        return seen(True, f"each pixel is rounded to the byte that the model takes: {attacked}", hint=OF_BYTES)
    return seen(True, f"there was no gradient of an fp32 parent: {attacked}")
