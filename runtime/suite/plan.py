"""What is run on an artifact: the suite by every gradient there is, and Square where none can be trusted.

A quantised graph has steps in place of slopes, and so has one that holds staircases, whatever it is called: its own
gradient is a stand-in (straight through the steps), and may mislead. So its attackers also follow the gradient of the
fp32 parent, and Square follows none. The artifact itself judges every point of all; an image is robust only if it
stands them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runtime.attacks import CASCADES, Attack, any_bounded, stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.records.request import GradientSource
    from runtime.session import GraphFacts, LossSpec, Session, SessionCard

BLIND = "square"
"""The attack that no gradient can mislead."""


class BorrowedGradient:
    """An artifact whose attackers follow the gradient of another: the answers of the one, the slopes of the other.

    Args:
        artifact: answers, and is what the card says.
        lender: its gradient graph is followed.

    """

    def __init__(self, artifact: Session, lender: Session) -> None:
        self._artifact = artifact
        self._lender = lender

    def logits(self, x: Any) -> Any:
        """Return the artifact's logits."""
        return self._artifact.logits(x)

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return the lender's logits, values and gradients."""
        return self._lender.loss_gradient(x, loss)

    def card(self) -> SessionCard:
        """Return the artifact's card: the gradient rounds apart from it, so every point is put to it."""
        return replace(self._artifact.card(), rounds_apart=True)


@dataclass(frozen=True)
class PlannedAttack:
    """One of the NAMES of attacks, by one gradient.

    Args:
        name: what was asked for.
        stages: what that runs.
        led: whose gradient those that need one follow; 'none' where there is none.

    """

    name: str
    stages: tuple[Attack, ...]
    led: GradientSource

    @property
    def is_cascade(self) -> bool:
        """Whether each stage runs on what the earlier ones left, with a summary row after them."""
        return self.name in CASCADES


def gradients(card: SessionCard, lender: Session | None) -> tuple[GradientSource, ...]:
    """Return whose gradients lead the attacks, in the order of the rows."""
    own: tuple[GradientSource, ...] = ("own",) if card.differentiable else ()
    return (*own, "parent") if lender else own


def mandatory_attacks(names: Sequence[str], classes: int, facts: GraphFacts) -> tuple[Attack, ...]:
    """Return the attacks that nobody asked for, and without which the figure would say little.

    That is Square on an artifact with steps, beside attacks within eps of which none is Square.
    """
    if not facts.stepped or not any_bounded(names):
        return ()
    if any(stage.name == BLIND for name in names for stage in stages(name, classes)):
        return ()
    return stages(BLIND, classes)


def plan(
    names: Sequence[str], classes: int, facts: GraphFacts, gradient_from: Sequence[GradientSource]
) -> tuple[PlannedAttack, ...]:
    """Return everything that is run, in the order of the report's rows.

    All NAMES by the first gradient, then by the next. What needs none does the same whoever leads: it runs once.
    """
    asked = [(name, stages(name, classes)) for name in names]
    assaults = []
    for number, led in enumerate(gradient_from or ("none",)):
        for name, attacks in asked:
            chosen = tuple(attack for attack in attacks if attack.uses_gradient or number == 0)
            assaults += [PlannedAttack(name, chosen, led)] if chosen else []
    besides = mandatory_attacks(names, classes, facts)
    return (*assaults, *(PlannedAttack(attack.name, (attack,), "none") for attack in besides))
