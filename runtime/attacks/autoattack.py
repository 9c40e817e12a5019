"""Standard AutoAttack (Croce & Hein 2020): a cascade of four attacks that fail in different ways."""

from __future__ import annotations


def standard(classes: int) -> tuple[str, ...]:
    """Return the keys of ATTACKS, in order.

    Targeted DLR needs four classes. With three, untargeted DLR replaces it; with two, neither is defined.
    """
    if classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    if classes == 3:
        return ("apgd-ce", "apgd-dlr", "fab-t", "square")
    return ("apgd-ce", "fab-t", "square")
