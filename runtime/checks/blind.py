"""Checks by searches without gradients, which no false gradient can mislead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.checks.facts import Facts, Seen, not_run, seen
from runtime.checks.power import most_by_chance, power_of_search
from runtime.words import percent

if TYPE_CHECKING:
    from runtime.records.measurements import Searched


def square_alone(facts: Facts) -> Seen:
    """Attacks with gradients should break what Square breaks, whichever runs first and from whatever start."""
    found = facts.outcome.square_alone
    if found is None:
        return not_run("square and an attack that uses gradients")
    alone = f"only square broke {found.alone} of {found.n} images that the attacks with gradients could not break"
    return seen(beyond_chance(found), f"{alone}; {_power(found)}")


def blind_control(facts: Facts) -> Seen:
    """Attacks with gradients should break what short searches without gradients break on a sample."""
    found = facts.outcome.blind_control
    if not facts.gated:
        return Seen("not run", "not run: no gate was asked for")
    if found is None:
        return not_run("an attack that uses gradients")
    searches = ", ".join(sorted(found.by))
    message = (
        f"searches without gradients ({searches}) broke {found.broken} of {found.n} images that no attack broke, "
        f"and nothing else broke {found.alone} of these; {_power(found)}"
    )
    return seen(beyond_chance(found), message)


def beyond_chance(found: Searched) -> bool:
    """Return whether searches without gradients alone broke more images than chance explains."""
    return found.alone > most_by_chance(found.n)


def _power(found: Searched) -> str:
    """Return words for the smallest share of such images that the check notices."""
    return f"the check notices a share of {percent(power_of_search(found.n).share)}"
