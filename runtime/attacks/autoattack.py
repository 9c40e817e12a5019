"""Standard AutoAttack (Croce & Hein 2020): four attacks that fail in different ways, each on what the others left."""

from __future__ import annotations


def standard(classes: int) -> tuple[str, ...]:
    """Return the keys of ATTACKS in their order.

    The targeted ratio needs four classes: with three the untargeted one takes its place, with two neither exists.
    """
    if classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    if classes == 3:
        return ("apgd-ce", "apgd-dlr", "fab-t", "square")
    return ("apgd-ce", "fab-t", "square")
