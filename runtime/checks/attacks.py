"""Checks that compare attacks: a stronger attack must find more, and an attack with a huge eps must succeed."""

from __future__ import annotations

import numpy as np

from runtime.checks.facts import Facts, Seen, not_run, seen
from runtime.records.request import labelled
from runtime.statistics import Pairs, mcnemar, wilson
from runtime.words import percent, points, radius

SIGNIFICANT = 0.01
"""The significance level of McNemar's test between FGSM and PGD."""
PGD_ABOVE_AA = 0.06
"""The most by which accuracy under PGD may exceed accuracy under AutoAttack. Honest networks reach 0.059."""


def far_from_chance(facts: Facts) -> Seen:
    """If the ball contains nearly every image, no classifier can be correct more often than by chance."""
    far = facts.outcome.far
    if far is None:
        return not_run("an attack that uses gradients")
    low, _ = wilson(round(far.accuracy * far.n), far.n)
    chance = 1 / facts.classes
    message = (
        f"PGD at eps {radius(far.eps)} leaves an accuracy of {percent(far.accuracy)} "
        f"(at least {percent(low)} with 95 % confidence); chance is {percent(chance)}"
    )
    return seen(low > chance, message)


def fgsm_over_pgd(facts: Facts) -> Seen:
    """One step must not be stronger than ten, unless the gradient misleads."""
    fell, correct = facts.outcome.evidence.fell, facts.outcome.evidence.correct
    both = [(labelled("fgsm", led), labelled("pgd", led)) for led in facts.gradient_from]
    if not both or not fell.keys() >= set(sum(both, ())):
        return not_run("fgsm and pgd")
    fgsm, pgd = (np.any([fell[name] for name in names], axis=0)[correct] for names in zip(*both, strict=True))
    only_fgsm, only_pgd = int((fgsm & ~pgd).sum()), int((pgd & ~fgsm).sum())
    p = mcnemar(Pairs(0, only_fgsm, only_pgd, 0))
    message = f"only fgsm broke {only_fgsm} images, only pgd broke {only_pgd} (exact McNemar p = {p:.2g})"
    return seen(only_fgsm > only_pgd and p < SIGNIFICANT, message)


def pgd_over_autoattack(facts: Facts) -> Seen:
    """Accuracy far higher under PGD than under AutoAttack shows that fixed steps on cross-entropy miss points."""
    fell = facts.outcome.evidence.fell
    pgd = [labelled("pgd", led) for led in facts.gradient_from]
    standard = [row.label for row in facts.outcome.attacks if row.cascade]
    if not pgd or not standard or not fell.keys() >= {*pgd, *standard}:
        return not_run("pgd and aa")
    by_pgd, by_standard = (int(np.any([fell[name] for name in names], axis=0).sum()) for names in (pgd, standard))
    above = (by_standard - by_pgd) / facts.n
    return seen(above > PGD_ABOVE_AA, f"accuracy under pgd is {points(above)} higher than under aa")


def black_box(facts: Facts) -> Seen:
    """Surviving only searches without gradients is weak evidence."""
    if not facts.within:
        return not_run("an attack within eps")
    if facts.white_box:
        return seen(False, "attacks with gradients ran too")
    blocking = facts.gated and not facts.accepts_blind_evidence
    return seen(True, "no attack used a gradient, so the evidence is weak", blocking=blocking)
