"""The workload of a run before it begins: its stages, the most passes of each, and the seconds of a pass."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from runtime.attacks import AGAIN, CONTROLS, PGD, SMOOTHED, UNIT
from runtime.attacks.losses import cross_entropy
from runtime.attacks.oracle import Oracle
from runtime.attacks.passes import Passes
from runtime.records.request import labelled
from runtime.spec import Gate
from runtime.suite.campaign import as_file_name, pgd_at
from runtime.suite.gradient_tests import CROSS, SCALES, STEADY, holding
from runtime.suite.run import CURVE, far_from
from runtime.suite.units import AGREE, AGREE_OF_A_PROCESS, CLASSIFY, REPEAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runtime.records.request import GradientSource
    from runtime.suite.units import Target
    from runtime.verdict.case import Case

TIMED = 32
"""The images with which a pass is timed if batches need not be full: an eighth of a unit."""
PATIENCE = 2.0
"""A pass that took longer than this many seconds is not timed again: start-up costs matter little in it."""


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Args:
        name: the beginning of the names of its units in the journal.
        images: the most images that it handles.
        costs: the most passes per image.
        gradient_from: the source of its gradients.

    """

    name: str
    images: int
    costs: Passes
    gradient_from: GradientSource = "none"

    @property
    def passes(self) -> Passes:
        """The passes of all its images."""
        return self.costs * self.images


@dataclass(frozen=True)
class Speed:
    """The seconds of a pass of one image.

    Args:
        forward: of a forward pass of the artifact.
        gradient: of a gradient, by its source.
        parent: of a forward pass of the fp32 parent; None without a parent.

    """

    forward: float
    gradient: Mapping[GradientSource, float]
    parent: float | None = None

    def of(self, stage: Stage) -> float:
        """Return the most seconds that a stage takes."""
        passes = stage.passes
        return passes.forwards * self.forward + passes.gradients * self.gradient.get(stage.gradient_from, 0.0)


def stages_of(case: Case) -> Iterator[Stage]:
    """Yield the stages of a run in order, each with all images that it may handle.

    The stage that follows only if Square alone broke images (`Scrutiny.square_alone`) is left out; it handles few.
    """
    n, plan = len(case.order), case.plan
    yield Stage("clean", n, CLASSIFY)
    lattice, row = CLASSIFY if case.request.lattice else Passes(), 0
    for planned in plan.attacks:
        for number, attack in enumerate(planned.stages):
            led = planned.gradient_from if attack.uses_gradient else "none"
            costs = attack.passes + (lattice if attack.bounded else Passes())
            yield Stage(f"{row + number}-{labelled(attack.name, led)}", n, costs, led)
        row += len(planned.stages) + planned.is_cascade
    sample = len(np.intersect1d(case.sample, case.order))
    if plan.attacks:
        yield Stage("repeated passes", sample, REPEAT)
    if plan.attacks and case.subject.session.unoptimised():
        yield Stage("unoptimised", sample, CLASSIFY)
    if plan.searches_by_gradient:
        yield from _gates(case, sample)
        yield from _beside(case, sample)


def _gates(case: Case, sample: int) -> Iterator[Stage]:
    """Yield the tests of the gradient, and the blind control if there is a gate."""
    led, stepped = case.plan.gradients[0], case.subject.session.card().facts.stepped
    yield Stage("gradient holds", sample, holding(SCALES), led)
    if not stepped:
        yield Stage("gradient steady", sample, STEADY, led)
    yield Stage("margin jumps", sample, CROSS)
    if case.request.gate == Gate():
        return
    searched = len(np.intersect1d(case.searched, case.order))
    for control in CONTROLS:
        yield Stage(f"blind-{control.name}", searched, control.passes)
    for prefix, attacks in (("blind", AGAIN), ("doubt", SMOOTHED)):
        for attack, source in product(attacks, case.plan.gradients):
            yield Stage(f"{prefix}-{labelled(attack.name, source)}", searched, attack.passes, source)


def _beside(case: Case, sample: int) -> Iterator[Stage]:
    """Yield the curve over eps, the attack with a huge eps, and the comparison of gradient graph and artifact."""
    eps, gradients = case.request.threat_model.eps, case.plan.gradients
    for number, source in product(range(len(CURVE)), gradients):
        if CURVE[number] * eps:
            yield _at(f"curve-{number}", CURVE[number] * eps, sample, source)
    for source in gradients:
        yield _at("far", far_from(eps), sample, source)
    of_a_process = case.subject.session.card().judge_command is not None
    for source in gradients:
        costs = AGREE_OF_A_PROCESS if of_a_process else AGREE
        yield Stage(labelled("gradient graph", source), sample, costs, source)


def _at(prefix: str, eps: float, sample: int, source: GradientSource) -> Stage:
    return Stage(f"{prefix}-{labelled(pgd_at(eps), source)}", sample, PGD.passes, source)


def left_of(stages: list[Stage], done: Mapping[str, int]) -> list[Stage]:
    """Return the stages that are left, without the images that an earlier process finished (`Journal.done`)."""
    names = [as_file_name(stage.name) for stage in stages]
    begun = max((number for number, name in enumerate(names) if name in done), default=0)
    return [
        Stage(stage.name, stage.images - done.get(names[number], 0), stage.costs, stage.gradient_from)
        for number, stage in enumerate(stages)
        if number >= begun
    ]


def time_passes(case: Case) -> Speed:
    """Time a forward pass and a gradient on a few of the run's images. The answers are not used.

    Raises:
        EdgeproofError: what the session raises.

    """
    target, lender, parent = case.target(), case.lender, None
    index = case.order[: target.batch if target.full else min(TIMED, target.batch, UNIT)]
    if lender:
        parent = _timed(len(index), lambda: lender.logits(target.points(index).x))
    gradients: dict[GradientSource, float] = {
        source: _gradient_seconds(target.following(source), index) for source in case.plan.gradients
    }
    oracle, points = Oracle(target.session, target.batch), target.points(index)
    return Speed(_timed(len(index), lambda: oracle.logits(points, points.x)), gradients, parent)


def _gradient_seconds(target: Target, index: object) -> float:
    oracle, points = Oracle(target.session, target.batch), target.points(index)
    loss = cross_entropy(points.one_hot)
    return _timed(len(points), lambda: oracle.loss_gradient(points, points.x, loss))


def _timed(images: int, ask: Callable[[], object]) -> float:
    """Return the seconds per image of a second pass, because the first also prepares the engine."""
    for _ in range(2):
        began = time.perf_counter()
        ask()
        seconds = time.perf_counter() - began
        if seconds > PATIENCE:
            break
    return seconds / images
