"""The plan of a run: the attacks with every available gradient, and Square if no gradient can be trusted.

A quantised graph, and any graph with staircases, has steps where a derivative would be. Its own gradient is a surrogate
that passes straight through the steps, and may mislead. So attacks also follow the gradient of the fp32 parent, and
Square follows none. The artifact itself judges every point, and an image is robust only if it survives all attacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.attacks import CASCADES, Attack, any_bounded, stages
from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.records.request import GradientSource
    from runtime.session import GraphFacts, SessionCard

BLIND = "square"
"""The attack that no false gradient can mislead."""


@dataclass(frozen=True)
class PlannedAttack:
    """One of the NAMES of attacks, with one gradient.

    Args:
        name: the requested name.
        stages: the attacks that it runs.
        gradient_from: the source of the gradient for stages that need one; 'none' without a gradient.

    """

    name: str
    stages: tuple[Attack, ...]
    gradient_from: GradientSource

    @property
    def is_cascade(self) -> bool:
        """Whether each stage runs on the images that earlier stages left, with a summary row after them."""
        return self.name in CASCADES


@dataclass(frozen=True)
class Plan:
    """All attacks on one artifact.

    Args:
        asked: the attacks that each requested name runs, in the order of the report.
        added: attacks that were not requested, but without which the figure would prove little.
        gradients: the sources of the gradients that the attacks follow in turn.

    """

    asked: Mapping[str, tuple[Attack, ...]]
    added: Mapping[str, tuple[Attack, ...]]
    gradients: tuple[GradientSource, ...]

    @property
    def attacks(self) -> tuple[PlannedAttack, ...]:
        """The planned attacks, in the order of the report's rows.

        All requested attacks run with the first gradient, then with the next. An attack without a gradient runs once.
        """
        planned = []
        for number, gradient_from in enumerate(self.gradients or ("none",)):
            for name, attacks in self.asked.items():
                chosen = tuple(attack for attack in attacks if attack.uses_gradient or number == 0)
                planned += [PlannedAttack(name, chosen, gradient_from)] if chosen else []
        return (*planned, *(PlannedAttack(name, attacks, "none") for name, attacks in self.added.items()))

    @property
    def searches_by_gradient(self) -> bool:
        """Whether an attack within eps follows a gradient."""
        return any(stage.uses_gradient and stage.bounded for each in self.attacks for stage in each.stages)

    def for_parent(self, card: SessionCard) -> Plan:
        """Return the plan for the parent as the baseline of a drop: the same attacks, with the parent's own gradient.

        Equal attacks make sure that the drop is due to the artifact.
        """
        return runnable(Plan({**self.asked, **self.added}, {}, gradient_sources(card, lends=False)), card)


def plan_suite(names: Iterable[str], classes: int, card: SessionCard, *, lends: bool) -> Plan:
    """Return the plan for an artifact.

    Args:
        names: the requested NAMES of attacks.
        classes: the artifact's number of classes.
        card: the artifact's card.
        lends: whether attacks also follow a parent's gradient.

    Raises:
        BadModel: the artifact has too few classes for an attack, or no gradient for an attack that needs one.

    """
    asked = {name: stages(name, classes) for name in names}
    added = mandatory_attacks(asked, classes, card.facts)
    return runnable(Plan(asked, added, gradient_sources(card, lends=lends)), card)


def runnable(plan: Plan, card: SessionCard) -> Plan:
    """Return the plan, after checking that it can run; raises as `plan_suite` does."""
    needing = [name for name, attacks in plan.asked.items() if any(attack.uses_gradient for attack in attacks)]
    if needing and not plan.gradients:
        raise BadModel(
            f"{needing[0]} needs a gradient, and {card.precision} has no gradient graph",
            hint="--gradient none attacks it with Square alone",
        )
    return plan


def gradient_sources(card: SessionCard, *, lends: bool) -> tuple[GradientSource, ...]:
    """Return the sources of the gradients that attacks follow, in the order of the rows."""
    own: tuple[GradientSource, ...] = ("own",) if card.differentiable else ()
    return (*own, "parent") if lends else own


def mandatory_attacks(
    asked: Mapping[str, tuple[Attack, ...]], classes: int, facts: GraphFacts
) -> dict[str, tuple[Attack, ...]]:
    """Return the attacks that run besides the requested ones, by name.

    That is Square, for an artifact with steps, if there are attacks within eps but Square is not among them.
    """
    if not facts.stepped or not any_bounded(asked):
        return {}
    if any(stage.name == BLIND for attacks in asked.values() for stage in attacks):
        return {}
    return {BLIND: stages(BLIND, classes)}
