"""Checks by searches without gradients, which no gradient can mislead; and what they cannot have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.checks.facts import Facts, Seen, not_run, seen
from runtime.statistics import fewest_beyond, smallest_seen
from runtime.words import percent

if TYPE_CHECKING:
    from runtime.records.report import Searched

BY_CHANCE, LEVEL = 0.005, 0.01
"""Honest networks lose no image to a blind search alone; more than this share explains, at LEVEL, is a finding."""


def square_alone(facts: Facts) -> Seen:
    """What Square breaks, an attack with gradients should have found, whichever ran first and from whatever start."""
    found = facts.outcome.square_alone
    if found is None:
        return not_run("square and an attack that uses gradients")
    alone = f"square alone broke {found.alone} of {found.n} images that stood the attacks with gradients"
    return seen(beyond_chance(found), f"{alone}; {_power(found)}")


def blind_control(facts: Facts) -> Seen:
    """What short searches without gradients break on a sample, attacks with gradients should have found."""
    found = facts.outcome.blind_control
    if not facts.gated:
        return Seen("not run", "not run: no gate was asked for")
    if found is None:
        return not_run("an attack that uses gradients")
    searches = ", ".join(sorted(found.by))
    message = (
        f"blind searches ({searches}) broke {found.broken} of {found.n} images that stood every attack, "
        f"{found.alone} of them alone; {_power(found)}"
    )
    return seen(beyond_chance(found), message)


def beyond_chance(found: Searched) -> bool:
    """Return whether blind searches found more alone than chance explains."""
    return found.alone >= _limit(found.n)


def undetected(standing: float, searched: int, broken: int = 0) -> float:
    """Return the points of robust accuracy that blind searches of a sample have broken, or may have missed, at 95 %.

    Args:
        standing: robust accuracy as it was found.
        searched: images among those standing that were searched.
        broken: how many of them fell, whether gradients from another start break them too or not.

    """
    return max(standing * smallest_seen(_limit(searched), searched), known(standing, searched, broken))


def known(standing: float, searched: int, broken: int) -> float:
    """Return the points of robust accuracy that a search of a sample has shown not to be there."""
    return standing * broken / searched if searched else 0.0


def _limit(n: int) -> int:
    return fewest_beyond(n, BY_CHANCE, LEVEL)


def _power(found: Searched) -> str:
    """Say the smallest share of the images that would have been seen to fall."""
    return f"{percent(smallest_seen(_limit(found.n), found.n))} of them falling so would have been seen"
