"""The order of a run: the clean pass, every attack of the plan block by block, then the tests on the sample."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import any_bounded
from runtime.records.totals import add_rows
from runtime.suite.campaign import Campaign
from runtime.suite.evidence import Evidence
from runtime.suite.journal import NoJournal
from runtime.suite.outcome import Held, Outcome
from runtime.suite.scrutiny import Scrutiny, doubtful
from runtime.terminal.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.records.measurements import AttackRow, GradientTest
    from runtime.suite.journal import Ledger
    from runtime.suite.plan import Plan
    from runtime.suite.units import Target
    from runtime.terminal.progress import Progress

SAMPLE = 256
"""The images for the eps curve, the agreement, and the checks that need passes of their own."""
CURVE = (0.0, 1 / 4, 1 / 2, 1.0, 3 / 2, 2.0)
"""The multiples of eps on the curve."""
FAR, FAR_MULTIPLE = 64 / 255, 4
"""The larger of FAR and FAR_MULTIPLE times eps is an eps at which no honest network is better than chance."""


def far_from(eps: float) -> float:
    """Return an eps, at most 1, at which no honest network is better than chance."""
    return min(max(FAR, FAR_MULTIPLE * eps), 1.0)


def run_suite(
    target: Target,
    plan: Plan,
    *,
    eps: float,
    seed: int,
    keep_all: bool,
    progress: Progress,
    ledger: Ledger | None = None,
    blocks: Sequence[Any] | None = None,
    sample: Any = None,
    decided: Callable[[Evidence, Any, Callable[[], Held]], bool] = lambda evidence, judged, held: False,
    lattice: bool = False,
    searched: Any = None,
    part: bool = False,
) -> Outcome:
    """Run the clean pass, every attack of the plan, and the further tests on the sample.

    Args:
        target: the artifact and its images.
        plan: the attacks.
        eps: radius of the L-infinity ball.
        seed: of the noise.
        keep_all: keep the worst point of every image, and not only of the sample.
        progress: follows every stage and unit.
        ledger: has the units that are done; None has none.
        blocks: indices of images, int64 [M] each. A block goes through all attacks before the next. None: one block of
            all images.
        sample: indices of at most SAMPLE images for the further tests; those that were judged are used. None: the
            first images.
        decided: called after every block with the evidence, the indices judged so far, and a function that returns
            `Held`; True ends the run. It may call that function only once all of `sample` and `searched` are judged,
            because later blocks then change nothing in it.
        lattice: also judge the points rounded to the uint8 lattice.
        searched: indices of images; those that survive go through the blind control. None: the control does not run.
        part: whether this is a shard. Then smoothed gradients always run, and merge decides whether they count.

    Raises:
        NonFinite: a logit or gradient is NaN or infinite.
        BadModel: the graph does not accept the images, or answers in another shape.

    """
    planned, gradients = plan.attacks, plan.gradients
    blocks = [np.arange(len(target.images))] if blocks is None else blocks
    order = np.concatenate(blocks)
    sample = np.sort(order)[:SAMPLE] if sample is None else np.sort(sample)
    evidence = Evidence.blank(target.images, np.sort(order) if keep_all else sample)
    campaign = Campaign(
        target, evidence, eps, seed, progress, NoJournal() if ledger is None else ledger, lattice=lattice
    )
    scrutiny = Scrutiny(campaign.units, evidence, eps, seed, gradients)
    stepped = target.session.card().facts.stepped
    rows: list[tuple[AttackRow, ...]] = []
    judged = order[:0]

    @cache
    def held() -> Held:
        if not plan.searches_by_gradient:
            return Held()
        test = scrutiny.gradient_test(np.intersect1d(sample, judged), surrogate=stepped)
        if searched is None:
            return Held(test)
        control, left = scrutiny.blind_control(np.intersect1d(searched, judged))
        return Held(test, control, scrutiny.smoothed_control(left) if part or doubtful(test) else None)

    for number, block in enumerate(blocks):
        within = replace(campaign, prefix=f"{number}-" if len(blocks) > 1 else "")
        within.classify(block)
        rows.append(within.run(planned, block))
        judged = np.concatenate([judged, block])
        if decided(evidence, judged, held):
            break
    index = np.sort(judged)
    outcome = Outcome(evidence.rows(index), add_rows(rows, len(index)))
    sample = np.intersect1d(sample, index)
    if not planned or not len(sample):
        return outcome
    outcome = replace(outcome, probe=campaign.probe(sample))
    if target.plain is not None:
        outcome = replace(outcome, fusion=scrutiny.fusion(sample))
    if not plan.searches_by_gradient:
        return outcome
    bounded = [row for row in outcome.attacks if any_bounded([row.name])]
    outcome = replace(
        outcome,
        **held()._asdict(),
        eps_curve=tuple(
            campaign.curve_point(sample, multiple * eps, gradients, f"curve-{number}-")
            for number, multiple in enumerate(CURVE)
        ),
        far=campaign.curve_point(sample, far_from(eps), gradients, "far-"),
        agreement=campaign.agreement(sample, "own") if "own" in gradients else None,
        parent_agreement=campaign.agreement(sample, "parent") if "parent" in gradients else None,
        square_alone=scrutiny.square_alone(bounded),
    )
    outcome = replace(outcome, evidence=evidence.rows(index))  # the searches above note whom the judge spared
    return outcome if part else outcome.settled


def hold_gradient(target: Target, sample: Any, *, eps: float) -> GradientTest | None:
    """Test the artifact's own gradient on images that no attack has changed; None if it cannot be tested.

    Args:
        target: the artifact and its images.
        sample: the images, int64 [M], rising.
        eps: radius of the L-infinity ball.

    """
    evidence, card = Evidence.blank(target.images, sample), target.session.card()
    campaign = Campaign(target, evidence, eps, 0, Silent())
    campaign.classify(sample)
    scrutiny = Scrutiny(campaign.units, evidence, eps, 0, ("own",) if card.differentiable else ())
    return scrutiny.gradient_test(sample, surrogate=card.facts.stepped)


def clean_pass(target: Target, kept: int, progress: Progress) -> Evidence:
    """Return the evidence after classifying every image, before any attack; it keeps points of the first `kept`."""
    evidence = Evidence.blank(target.images, np.arange(kept))
    Campaign(target, evidence, 0.0, 0, progress).classify(evidence.index)
    return evidence
