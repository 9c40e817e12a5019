"""What is run on an artifact: the suite by every gradient there is, and Square where none can be trusted.

A quantised graph has steps in place of slopes, and so has one that holds staircases, whatever it is called: its own
gradient is a stand-in (straight through the steps), and may mislead. So its attackers also follow the gradient of the
fp32 parent, and Square follows none. The artifact itself judges every point of all; an image is robust only if it
stands them all.
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
"""The attack that no gradient can mislead."""


@dataclass(frozen=True)
class PlannedAttack:
    """One of the NAMES of attacks, by one gradient.

    Args:
        name: what was asked for.
        stages: what that runs.
        gradient_from: whose gradient those that need one follow; 'none' where there is none.

    """

    name: str
    stages: tuple[Attack, ...]
    gradient_from: GradientSource

    @property
    def is_cascade(self) -> bool:
        """Whether each stage runs on what the earlier ones left, with a summary row after them."""
        return self.name in CASCADES


@dataclass(frozen=True)
class Plan:
    """Everything that is run on one artifact, decided once.

    Args:
        asked: what each of the NAMES of attacks asked for runs, in the order of the report.
        added: the attacks that nobody asked for, and without which the figure would say little.
        gradients: whose gradients lead the attacks, in turn.

    """

    asked: Mapping[str, tuple[Attack, ...]]
    added: Mapping[str, tuple[Attack, ...]]
    gradients: tuple[GradientSource, ...]

    @property
    def attacks(self) -> tuple[PlannedAttack, ...]:
        """What is run, in the order of the report's rows.

        All that is asked by the first gradient, then by the next. What needs none does the same whoever leads: it runs
        once.
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
        """Return the plan of the parent that a drop is measured from: the same attacks, by its own gradient.

        So the drop is the artifact's and not the attacks'.
        """
        return runnable(Plan({**self.asked, **self.added}, {}, gradient_sources(card, lends=False)), card)


def plan_suite(names: Iterable[str], classes: int, card: SessionCard, *, lends: bool) -> Plan:
    """Return what is run on an artifact.

    Args:
        names: NAMES of attacks, those asked for.
        classes: how many the artifact knows.
        card: what the artifact says of itself.
        lends: whether a parent's gradient leads attacks too.

    Raises:
        BadModel: it has too few classes for an attack, or no gradient for one that needs it.

    """
    asked = {name: stages(name, classes) for name in names}
    added = mandatory_attacks(asked, classes, card.facts)
    return runnable(Plan(asked, added, gradient_sources(card, lends=lends)), card)


def runnable(plan: Plan, card: SessionCard) -> Plan:
    """Return a plan that can be run; raises as `plan_suite` does."""
    needing = [name for name, attacks in plan.asked.items() if any(attack.uses_gradient for attack in attacks)]
    if needing and not plan.gradients:
        raise BadModel(
            f"{needing[0]} needs a gradient, and {card.precision} has no gradient graph",
            hint="--gradient none attacks it with Square alone",
        )
    return plan


def gradient_sources(card: SessionCard, *, lends: bool) -> tuple[GradientSource, ...]:
    """Return whose gradients lead the attacks, in the order of the rows."""
    own: tuple[GradientSource, ...] = ("own",) if card.differentiable else ()
    return (*own, "parent") if lends else own


def mandatory_attacks(
    asked: Mapping[str, tuple[Attack, ...]], classes: int, facts: GraphFacts
) -> dict[str, tuple[Attack, ...]]:
    """Return the attacks that run besides those `asked` for, by name.

    That is Square on an artifact with steps, beside attacks within eps of which none is Square.
    """
    if not facts.stepped or not any_bounded(asked):
        return {}
    if any(stage.name == BLIND for attacks in asked.values() for stage in attacks):
        return {}
    return {BLIND: stages(BLIND, classes)}
