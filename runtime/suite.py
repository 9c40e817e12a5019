"""The attack suite on one artifact: every attack on all correctly classified images, unit by unit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import CASCADES, PGD, UNIT, Attack, stages
from runtime.evidence import Evidence
from runtime.journal import Forgetful
from runtime.report_schema import Agreement, AttackRow, CurvePoint, Probe
from runtime.statistics import wilson
from runtime.totals import add_rows
from runtime.units import Target, agree, classify, measure, repeat, search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.journal import Ledger, Work
    from runtime.progress import Progress
    from runtime.units import Job

__all__ = ["Campaign", "Outcome", "Target", "clean_pass", "run_suite"]

SAMPLE = 256
"""Images of the eps curve, of the agreement and of the checks that need passes of their own."""
CURVE = (0.0, 1 / 4, 1 / 2, 1.0, 3 / 2, 2.0)
"""Multiples of eps on the curve."""
FAR, FAR_MULTIPLE = 64 / 255, 4
"""An eps at which no honest network stands above chance: the larger of this and this multiple of the model's own."""


@dataclass(frozen=True)
class Outcome:
    """What the suite found; `evidence` has a row for each image judged."""

    evidence: Evidence
    attacks: tuple[AttackRow, ...]
    eps_curve: tuple[CurvePoint, ...] = ()
    far: CurvePoint | None = None
    agreement: Agreement | None = None
    probe: Probe | None = None


def run_suite(
    target: Target,
    attacks: Sequence[str],
    *,
    eps: float,
    seed: int,
    keep_all: bool,
    progress: Progress,
    ledger: Ledger | None = None,
    blocks: Sequence[Any] | None = None,
    sample: Any = None,
    decided: Callable[[Evidence, Any], bool] = lambda evidence, judged: False,
    lattice: bool = False,
) -> Outcome:
    """Run the clean pass and every attack named; where one used gradients, what the sample is asked besides.

    Args:
        target: the artifact and its images.
        attacks: NAMES of attacks, in the order of the report's rows.
        eps: radius of the L-infinity ball.
        seed: of the noise.
        keep_all: keep the worst point of every image, not only of the sample.
        progress: told of every stage and unit.
        ledger: knows the units that are done; None does all.
        blocks: places of the images; each block goes through all attacks before the next. None: one block of all.
        sample: places of at most SAMPLE images that are asked more than the attacks ask; of them, those judged
            are. None: the first.
        decided: told of the evidence and the places judged after every block; True ends the run.
        lattice: judge the points found on the uint8 lattice too.

    Raises:
        NonFinite: a logit or gradient is NaN or infinite.
        BadModel: the graph does not take the images, answers in another shape, or has too few classes for an attack.

    """
    chosen = {name: stages(name, target.classes) for name in attacks}
    blocks = [np.arange(len(target.images))] if blocks is None else blocks
    order = np.concatenate(blocks)
    sample = np.sort(order)[:SAMPLE] if sample is None else np.sort(sample)
    evidence = Evidence.blank(target.images, np.sort(order) if keep_all else sample)
    campaign = Campaign(
        target, evidence, eps, seed, progress, Forgetful() if ledger is None else ledger, lattice=lattice
    )
    rows: list[tuple[AttackRow, ...]] = []
    judged = order[:0]
    for number, block in enumerate(blocks):
        part = replace(campaign, prefix=f"{number}-" if len(blocks) > 1 else "")
        part.classify(block)
        rows.append(part.assault(chosen, block))
        judged = np.concatenate([judged, block])
        if decided(evidence, judged):
            break
    index = np.sort(judged)
    outcome = Outcome(evidence.rows(index), add_rows(rows, len(index)))
    sample = np.intersect1d(sample, index)
    if not chosen or not len(sample):
        return outcome
    outcome = replace(outcome, probe=campaign.probe(sample))
    if not any(attack.uses_gradient and attack.bounded for attacks in chosen.values() for attack in attacks):
        return outcome
    return replace(
        outcome,
        eps_curve=tuple(campaign.curve_point(sample, multiple * eps) for multiple in CURVE),
        far=campaign.curve_point(sample, min(max(FAR, FAR_MULTIPLE * eps), 1.0)),
        agreement=campaign.agreement(sample),
    )


def clean_pass(target: Target, kept: int, progress: Progress) -> Evidence:
    """Classify every image, before any attack; the worst points of the first `kept` will be kept."""
    evidence = Evidence.blank(target.images, np.arange(kept))
    Campaign(target, evidence, 0.0, 0, progress).classify(evidence.index)
    return evidence


@dataclass(frozen=True)
class Campaign:
    """Attacks on one artifact's correctly classified images; what they find goes into the evidence.

    Args:
        target: the artifact and its images.
        evidence: what is known of them.
        eps: radius of the L-infinity ball.
        seed: of the noise.
        progress: told of every stage and unit.
        ledger: knows the units that are done.
        prefix: of the units' names, where the images come in more than one block.
        lattice: judge the points found on the uint8 lattice too.

    """

    target: Target
    evidence: Evidence
    eps: float
    seed: int
    progress: Progress
    ledger: Ledger = field(default_factory=Forgetful)
    prefix: str = ""
    lattice: bool = False

    def classify(self, index: Any) -> None:
        """Classify the images at `index`, before any attack."""
        for chunk, work in self._units("clean", index, classify):
            self.evidence.classify(chunk, work.arrays["prediction"], work.arrays["margin"])

    def assault(self, chosen: dict[str, tuple[Attack, ...]], index: Any) -> tuple[AttackRow, ...]:
        """Run every attack on the images at `index`; from the name asked for to what it runs (`attacks.stages`)."""
        rows: list[AttackRow] = []
        for name, attacks in chosen.items():
            if name in CASCADES:
                rows += self.cascade(name, attacks, len(rows), index)
            else:
                rows.append(self.attack(attacks[0], len(rows), index))
        return tuple(rows)

    def attack(self, attack: Attack, row: int, index: Any = None) -> AttackRow:
        """Run one attack on every correctly classified image of `index` (all); `row` is its place in the report."""
        return self._attack(attack, row, self._standing(index), cascade=False)

    def cascade(self, name: str, attacks: Sequence[Attack], row: int, index: Any = None) -> list[AttackRow]:
        """Run each attack on what the earlier ones of them left: a row each from `row` on, and a summary row.

        Images that an attack before the cascade broke are attacked again, so that its accuracy is its own.
        """
        standing = self._standing(index)
        rows = [self._attack(attack, row + place, standing, cascade=True) for place, attack in enumerate(attacks)]
        costs = {cost: sum(getattr(each, cost) for each in rows) for cost in ("seconds", "forwards", "gradients")}
        broken = sum(each.broken for each in rows)
        return [*rows, self._row(name, rows[0].attacked, broken, cascade=False, gradient="own", **costs)]

    def curve_point(self, sample: Any, eps: float) -> CurvePoint:
        """Return the accuracy under PGD-10 at one eps; at 0 the clean accuracy."""
        index = sample[self.evidence.correct[sample]]
        broken = 0
        if eps > 0:
            job = partial(search, attack=PGD, eps=eps, seed=self.seed)
            for _, work in self._units(f"PGD at eps {eps:.3g}", index, job):
                broken += int(work.arrays["broken"].sum())
        return CurvePoint(eps=eps, n=len(sample), accuracy=(len(index) - broken) / len(sample))

    def agreement(self, sample: Any) -> Agreement:
        """Compare the gradient graph's predictions with the artifact's, on clean and worst points."""
        n = same = 0
        for chunk, work in self._units("gradient graph", sample, partial(agree, evidence=self.evidence)):
            correct = self.evidence.correct[chunk]
            clean = work.arrays["clean"] == self.evidence.clean_prediction[chunk]
            worst = (work.arrays["worst"] == self.evidence.adversarial_prediction[chunk])[correct]
            n, same = n + len(clean) + len(worst), same + int(clean.sum() + worst.sum())
        return Agreement(n=n, same_prediction=same)

    def probe(self, sample: Any) -> Probe:
        """Ask the artifact what only shows in several answers put side by side."""
        counts = {"randomised": 0, "probabilities": 0}
        for _, work in self._units("repeated passes", sample, repeat):
            counts = {name: count + int(work.arrays[name].sum()) for name, count in counts.items()}
        return Probe(n=len(sample), **counts)

    def _standing(self, index: Any) -> Any:
        standing = self.evidence.correct
        if index is not None:
            standing &= np.isin(self.evidence.index, index)
        return standing

    def _attack(self, attack: Attack, row: int, standing: Any, *, cascade: bool) -> AttackRow:
        """Run one attack where `standing` (bool [N]) is set, and unset it where the attack broke the image."""
        index = np.flatnonzero(standing)
        costs: dict[str, Any] = {"seconds": 0.0, "forwards": 0, "gradients": 0}
        job = partial(search, attack=attack, eps=self.eps, seed=self.seed)
        if attack.bounded:
            job = partial(job, evidence=self.evidence, lattice=self.lattice)
            self.evidence.began(attack.name)
        for chunk, work in self._units(attack.name, index, job, place=f"{row}-", most=attack.unit):
            if attack.bounded:
                self.evidence.update(row, attack.name, chunk, work.arrays)
            standing[chunk] = ~work.arrays["broken"]
            costs = {cost: total + getattr(work, cost) for cost, total in costs.items()}
        broken = int(len(index) - standing[index].sum())
        gradient = "own" if attack.uses_gradient else "none"
        return self._row(attack.name, len(index), broken, cascade=cascade, gradient=gradient, **costs)

    def _row(self, name: str, attacked: int, broken: int, **rest: Any) -> AttackRow:
        left, n = attacked - broken, len(self.target.images)
        return AttackRow(name=name, attacked=attacked, broken=broken, accuracy=left / n, ci95=wilson(left, n), **rest)

    def _units(self, stage: str, index: Any, job: Job, place: str = "", most: int = UNIT) -> Iterator[tuple[Any, Work]]:
        """Yield the chunks of `index`, each with what the unit on it left; `place` tells two stages of a name apart."""
        self.progress.stage(stage, len(index))
        for number, chunk in enumerate(self.target.chunks(index, most)):
            name = f"{self.prefix}{place}{stage}-{number}".replace(" ", "-")
            held = self.ledger.holds(name)
            yield chunk, self.ledger.unit(name, chunk, partial(measure, self.target, chunk, job))
            self.progress.advance(len(chunk), fresh=not held)
