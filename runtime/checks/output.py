"""Checks of the artifact's outputs: properties that attacks and verdicts assume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.checks.facts import Facts, Seen, not_run, seen
from runtime.statistics import Pairs, paired_difference
from runtime.suite.scrutiny import most_tolerated
from runtime.words import points

if TYPE_CHECKING:
    from runtime.records.measurements import Fusion


def randomised(facts: Facts) -> Seen:
    """Five passes over the same images must give equal answers, and so must each image alone, except for rounding."""
    probe = facts.outcome.probe
    if probe is None:
        return Seen("not run", "not run: no image of the sample was judged")
    words = f"five passes over {probe.n} images agree on {probe.n - probe.randomised}"
    mixed = probe.otherwise_alone > most_tolerated(probe.n)
    if mixed:
        words += f"; {probe.otherwise_alone} get another answer in a batch than alone"
    return seen(probe.randomised > 0 or mixed, words)


def softmax(facts: Facts) -> Seen:
    """If the logits are probabilities, their gradient vanishes where the model is certain."""
    probe = facts.outcome.probe
    if probe is None:
        return Seen("not run", "not run: no image of the sample was judged")
    if probe.probabilities == probe.n:
        return Seen("found", f"the output is a softmax: on all {probe.n} images it is non-negative and sums to one")
    return Seen("quiet", "the output is not a softmax")


def fusion(facts: Facts) -> Seen:
    """An engine that fuses and reorders operators must not change the graph's answers."""
    found = facts.outcome.fusion
    if found is None:
        return not_run("a backend whose optimisations can be left out, as ONNX Runtime on the CPU")
    other, (low, high) = found.n - found.same_prediction, _change(found)
    message = f"ONNX Runtime's optimisations change the class of {other} of {found.n} images"
    changed = low > 0 or high < 0
    if changed:
        message += f", and change accuracy by {points(low)} to {points(high)}"
    return seen(other > 0, message, blocking=changed)


def _change(found: Fusion) -> tuple[float, float]:
    rest = found.n - found.only_optimised - found.only_plain
    return paired_difference(Pairs(rest, found.only_optimised, found.only_plain, 0))
