"""The adversarial images of `edgeproof.attack`: the attacks of a verdict, without the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from runtime.checks.facts import Facts
from runtime.checks.gradient import agreement, holds, zero_gradient
from runtime.errors import BadModel
from runtime.suite.campaign import Campaign
from runtime.suite.evidence import Evidence
from runtime.suite.outcome import Outcome
from runtime.suite.scrutiny import Scrutiny
from runtime.terminal.progress import Silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from runtime.verdict.case import Case


def worst_points(case: Case) -> NDArray[np.float32]:
    """Return the worst point of each image, float32 [N, C, H, W], under the requested attacks and every gradient.

    Raises:
        BadModel: the gradient is zero, or it is not that of the artifact: the points would be meaningless.
        EdgeproofError: see `Case.attack`.

    """
    subject, eps, seed = case.subject, case.request.threat_model.eps, case.request.seed
    target = case.target()
    evidence = Evidence.blank(case.images, np.arange(len(case.images)))
    campaign = Campaign(target, evidence, eps, seed, Silent())
    campaign.classify(evidence.index)
    plan = replace(case.plan, added={})
    outcome = Outcome(evidence, campaign.run(plan.attacks, evidence.index))
    if plan.searches_by_gradient and evidence.correct.any():
        sample = np.sort(case.sample)
        scrutiny = Scrutiny(campaign.units, evidence, eps, seed, plan.gradients)
        stepped = subject.session.card().facts.stepped
        refuse_wrong_gradient(
            case,
            replace(
                outcome,
                gradient_test=scrutiny.gradient_test(sample, surrogate=stepped),
                agreement=campaign.agreement(sample, "own") if "own" in plan.gradients else None,
                parent_agreement=campaign.agreement(sample, "parent") if "parent" in plan.gradients else None,
            ),
        )
    found: NDArray[np.float32] = evidence.adversarial
    return found


def refuse_wrong_gradient(case: Case, outcome: Outcome) -> None:
    """Raise `BadModel` if a verdict would find that the gradient is zero, or belongs to another graph."""
    facts = Facts(outcome, len(case.subject.classes), case.subject.artifact)
    for look in (zero_gradient, holds, agreement):
        seen = look(facts)
        if seen.state == "found":
            raise BadModel(
                f"the gradient leads nowhere: {seen.message}",
                hint=seen.hint or "attack='square' follows no gradient; verify says what else it found",
            )
