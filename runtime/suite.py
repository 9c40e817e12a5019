"""The attack suite on one artifact: every attack on all correctly classified images, worst points kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import CASCADES, PGD, Attack, stages
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.attacks.oracle import Found, Oracle, Points, margins, predictions
from runtime.errors import BadModel
from runtime.report_schema import Agreement, AttackRow, CurvePoint
from runtime.statistics import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.images import ImageSet
    from runtime.progress import Progress
    from runtime.session import Session

STANDS = -1
WRONG_BEFORE = -2
"""Values of Evidence.broken_by other than a row of the report's attacks."""

SAMPLE = 256
"""Images of the eps curve and of the agreement."""
CURVE = (0.0, 1 / 4, 1 / 2, 1.0, 3 / 2, 2.0)
"""Multiples of eps on the curve."""
BATCHES_A_CHUNK = 8
"""An attack holds this many batches in memory, so that full batches can be packed from what still stands."""


@dataclass(frozen=True)
class Target:
    """What is attacked, and on which images.

    Args:
        session: the artifact.
        images: all of them are attacked.
        classes: how many the model knows.
        batch: images a session is asked at once.
        place: turns numpy float32 or int64 into the session's arrays, on its device.

    """

    session: Session
    images: ImageSet
    classes: int
    batch: int
    place: Callable[[Any], Any] = np.asarray

    def oracle(self) -> Oracle:
        """Return a fresh oracle, its counters at zero."""
        return Oracle(self.session, self.batch)

    def points(self, index: Any) -> Points:
        """Return the images at `index` (int64 [B]) as points under attack."""
        label = self.images.labels[index]
        place = self.place
        return Points(
            place(self.images.as_float(index)),
            one_hot(place(label), self.classes),
            label,
            index,
            np.arange(len(index)),
        )

    def chunks(self, index: Any) -> Iterator[Points]:
        """Yield the images at `index` in chunks that fit into memory."""
        size = self.batch * BATCHES_A_CHUNK
        for start in range(0, len(index), size):
            yield self.points(index[start : start + size])


@dataclass
class Evidence:
    """One row an image, in the order of the set: what evidence.npz holds.

    Attributes:
        index: int64 [N], the place in the set.
        label: int64 [N].
        clean_prediction: int64 [N].
        broken_by: int64 [N], the row of the attack that broke it first, STANDS or WRONG_BEFORE.
        adversarial_prediction: int64 [N], the artifact's class at the worst point: the one that broke
            the image first, else the one with the largest margin.
        linf: float64 [N], distance of that point from the clean image.
        margin: float32 [N], max_{j != y} z_j - z_y there.
        adversarial: float32 [M, C, H, W], the worst points of the first M images.
        zero_gradient: bool [N], an attack found no gradient to begin with (`Oracle.zero_gradient`); not kept.

    """

    index: Any
    label: Any
    clean_prediction: Any
    broken_by: Any
    adversarial_prediction: Any
    linf: Any
    margin: Any
    adversarial: Any
    zero_gradient: Any

    @property
    def correct(self) -> Any:
        """Bool [N]: classified correctly before any attack."""
        return self.broken_by != WRONG_BEFORE

    @property
    def robust(self) -> Any:
        """Bool [N]: classified correctly at every point tried."""
        return self.broken_by == STANDS

    def arrays(self, *, adversarial: bool) -> dict[str, Any]:
        """Return the arrays by name, the worst points only where asked for."""
        left_out = {"zero_gradient"} if adversarial else {"zero_gradient", "adversarial"}
        return {name: array for name, array in vars(self).items() if name not in left_out}

    def update(self, row: int, points: Points, found: Found) -> None:
        """Take in what the attack of `row` found for a chunk."""
        standing = self.broken_by[points.index] == STANDS
        worse = standing & (found.broken | (found.margin > self.margin[points.index]))
        index = points.index[worse]
        self.adversarial_prediction[index] = found.prediction[worse]
        self.linf[index], self.margin[index] = found.linf[worse], found.margin[worse]
        kept = worse & (points.index < len(self.adversarial))
        self.adversarial[points.index[kept]] = found.x[kept]
        self.broken_by[points.index[standing & found.broken]] = row


@dataclass(frozen=True)
class Outcome:
    """What the suite found."""

    evidence: Evidence
    attacks: tuple[AttackRow, ...]
    eps_curve: tuple[CurvePoint, ...]
    agreement: Agreement | None


def run_suite(
    target: Target, attacks: Sequence[str], *, eps: float, seed: int, keep_all: bool, progress: Progress
) -> Outcome:
    """Run the clean pass and every attack named; where one used gradients, the eps curve and agreement.

    Args:
        target: the artifact and its images.
        attacks: NAMES of attacks, in the order of the report's rows.
        eps: radius of the L-infinity ball.
        seed: of the noise.
        keep_all: keep the worst point of every image, not only of the sample.
        progress: told of every stage and chunk.

    Raises:
        NonFinite: a logit or gradient is NaN or infinite.
        BadModel: the graph does not take the images, answers in another shape, or has too few classes for an attack.

    """
    kept = len(target.images) if keep_all else min(SAMPLE, len(target.images))
    plan = {name: stages(name, target.classes) for name in attacks}
    evidence = clean_pass(target, kept, progress)
    campaign = Campaign(target, evidence, eps, seed, progress)
    rows: list[AttackRow] = []
    for name, chosen in plan.items():
        if name in CASCADES:
            rows += campaign.cascade(name, chosen, len(rows))
        else:
            rows.append(campaign.attack(chosen[0], len(rows)))
    if not any(attack.uses_gradient for chosen in plan.values() for attack in chosen):
        return Outcome(evidence, tuple(rows), (), None)
    curve = tuple(curve_point(target, evidence, multiple * eps, seed, progress) for multiple in CURVE)
    return Outcome(evidence, tuple(rows), curve, agreement(target, evidence))


def clean_pass(target: Target, kept: int, progress: Progress) -> Evidence:
    """Classify every image, before any attack."""
    index, label, oracle = np.arange(len(target.images)), target.images.labels, target.oracle()
    progress.stage("clean", len(index))
    answers = []
    for points in target.chunks(index):
        answers.append(oracle.logits(points, points.x))
        progress.advance(len(points))
    z = np.concatenate(answers)
    if z.shape != (len(index), target.classes):
        raise BadModel(f"the logits have shape {z.shape}", hint=f"{target.classes} classes, one row an image")
    prediction = predictions(z)
    broken_by = np.where(prediction == label, STANDS, WRONG_BEFORE)
    linf, clean, flat = np.zeros(len(index)), target.images.as_float(slice(0, kept)), np.zeros(len(index), bool)
    return Evidence(index, label, prediction, broken_by, prediction.copy(), linf, margins(z, label), clean, flat)


@dataclass(frozen=True)
class Campaign:
    """Attacks on one artifact's correctly classified images; what they find goes into the evidence."""

    target: Target
    evidence: Evidence
    eps: float
    seed: int
    progress: Progress

    def attack(self, attack: Attack, row: int) -> AttackRow:
        """Run one attack on every correctly classified image; `row` is its place in the report."""
        return self._attack(attack, row, self.evidence.correct.copy(), cascade=False)

    def cascade(self, name: str, attacks: Sequence[Attack], row: int) -> list[AttackRow]:
        """Run each attack on what the earlier ones of them left: a row each from `row` on, and a summary row.

        Images that an attack before the cascade broke are attacked again, so that its accuracy is its own.
        """
        standing = self.evidence.correct.copy()
        rows = [self._attack(attack, row + place, standing, cascade=True) for place, attack in enumerate(attacks)]
        costs = {cost: sum(getattr(each, cost) for each in rows) for cost in ("seconds", "forwards", "gradients")}
        broken = sum(each.broken for each in rows)
        return [*rows, self._row(name, rows[0].attacked, broken, cascade=False, gradient="own", **costs)]

    def _attack(self, attack: Attack, row: int, standing: Any, *, cascade: bool) -> AttackRow:
        """Run one attack where `standing` (bool [N]) is set, and unset it where the attack broke the image."""
        index, oracle, began = np.flatnonzero(standing), self.target.oracle(), time.perf_counter()
        self.progress.stage(attack.name, len(index))
        for points in self.target.chunks(index):
            found = attack.run(oracle, points, self.eps, self.seed)
            if attack.bounded:
                self.evidence.update(row, points, found)
            standing[points.index] = ~found.broken
            self.progress.advance(len(points))
        self.evidence.zero_gradient[list(oracle.zero_gradient)] = True
        return self._row(
            attack.name,
            len(index),
            int(len(index) - standing.sum()),
            cascade=cascade,
            gradient="own" if attack.uses_gradient else "none",
            seconds=time.perf_counter() - began,
            forwards=oracle.forwards,
            gradients=oracle.gradients,
        )

    def _row(self, name: str, attacked: int, broken: int, **rest: Any) -> AttackRow:
        left, n = attacked - broken, len(self.target.images)
        return AttackRow(name=name, attacked=attacked, broken=broken, accuracy=left / n, ci95=wilson(left, n), **rest)


def curve_point(target: Target, evidence: Evidence, eps: float, seed: int, progress: Progress) -> CurvePoint:
    """Return the accuracy under PGD-10 at one eps on the first images; at 0 the clean accuracy."""
    correct = evidence.correct[:SAMPLE]
    index = np.flatnonzero(correct)
    broken = 0
    if eps > 0:
        progress.stage(f"PGD at eps {eps:.4f}", len(index))
        for points in target.chunks(index):
            broken += int(PGD.run(target.oracle(), points, eps, seed).broken.sum())
            progress.advance(len(points))
    return CurvePoint(eps=eps, n=len(correct), accuracy=(len(index) - broken) / len(correct))


def agreement(target: Target, evidence: Evidence) -> Agreement:
    """Compare the gradient graph's predictions with the artifact's, on clean and worst points."""
    index = np.arange(min(SAMPLE, len(target.images)))
    attacked = index[evidence.correct[:SAMPLE]]
    clean = _gradient_predictions(target, index, target.images.as_float(index)) == evidence.clean_prediction[index]
    worst = _gradient_predictions(target, attacked, evidence.adversarial[attacked])
    same = worst == evidence.adversarial_prediction[attacked]
    return Agreement(n=len(clean) + len(same), same_prediction=int(clean.sum() + same.sum()))


def _gradient_predictions(target: Target, index: Any, x: Any) -> Any:
    if not len(index):
        return index
    points = target.points(index)
    z, _, _ = target.oracle().loss_gradient(points, target.place(x), cross_entropy(points.one_hot))
    return predictions(z)
