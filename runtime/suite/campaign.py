"""Runs attacks on one artifact, unit by unit, and adds what they find to the evidence on each image."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import PGD, UNIT, Attack
from runtime.attacks.passes import Headway, Passes
from runtime.records.measurements import Agreement, AttackRow, CurvePoint, Probe
from runtime.records.request import labelled
from runtime.statistics import wilson
from runtime.suite.journal import NoJournal
from runtime.suite.units import (
    AGREE,
    AGREE_OF_A_PROCESS,
    CLASSIFY,
    REPEAT,
    agree,
    classify,
    measure_all,
    repeat,
    search,
    search_all,
)
from runtime.words import radius

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from runtime.records.request import GradientSource
    from runtime.session import Session
    from runtime.suite.evidence import Evidence
    from runtime.suite.journal import Ledger, Work
    from runtime.suite.plan import PlannedAttack
    from runtime.suite.units import Follow, Job, Target
    from runtime.terminal.progress import Progress


def pgd_at(eps: float) -> str:
    """Return the name of a stage of the curve."""
    return f"PGD at eps {radius(eps)}"


def as_file_name(unit: str) -> str:
    """Return a unit's name in the form for its file."""
    return unit.replace(" ", "-").replace("/", "-")


@dataclass(frozen=True)
class Campaign:
    """Runs attacks on one artifact's correctly classified images, and adds what they find to the evidence.

    Every `index` and `sample` is int64 [M]: positions of images in the set.

    Args:
        target: the artifact and its images.
        evidence: on the images.
        eps: radius of the L-infinity ball.
        seed: of the noise.
        progress: follows every stage and unit.
        ledger: has the units that are done.
        prefix: of the units' names, if there is more than one block of images.
        lattice: also judge the points rounded to the uint8 lattice.

    """

    target: Target
    evidence: Evidence
    eps: float
    seed: int
    progress: Progress
    ledger: Ledger = field(default_factory=NoJournal)
    prefix: str = ""
    lattice: bool = False

    def classify(self, index: Any) -> None:
        """Classify the images at `index`, before any attack."""
        for chunk, work in self.units("clean", index, classify, CLASSIFY):
            self.evidence.classify(chunk, work.arrays["prediction"], work.arrays["margin"])

    def run(self, planned: Sequence[PlannedAttack], index: Any) -> tuple[AttackRow, ...]:
        """Run every attack on the images at `index`."""
        rows: list[AttackRow] = []
        for each in planned:
            if each.is_cascade:
                rows += self.cascade(each, len(rows), index)
            else:
                rows.append(self.attack(each.stages[0], len(rows), index, each.gradient_from))
        return tuple(rows)

    def attack(self, attack: Attack, row: int, index: Any = None, gradient_from: GradientSource = "own") -> AttackRow:
        """Run one attack on the correctly classified images of `index`, by default all; `row` is its row's number."""
        return self._attack(attack, row, self._standing(index), gradient_from, cascade=False)

    def cascade(self, planned: PlannedAttack, row: int, index: Any = None) -> list[AttackRow]:
        """Run each stage on the images that earlier ones left; return a row for each, from `row` on, and a summary row.

        The cascade also attacks images that earlier attacks broke, so that its accuracy does not depend on them.
        """
        standing, gradient_from = self._standing(index), planned.gradient_from
        rows = [
            self._attack(attack, row + number, standing, gradient_from, cascade=True)
            for number, attack in enumerate(planned.stages)
        ]
        costs = {cost: sum(getattr(each, cost) for each in rows) for cost in ("seconds", "forwards", "gradients")}
        broken = sum(each.broken for each in rows)
        return [
            *rows,
            self._row(planned.name, rows[0].attacked, broken, cascade=False, gradient=gradient_from, **costs),
        ]

    def curve_point(self, sample: Any, eps: float, gradients: Sequence[GradientSource], prefix: str) -> CurvePoint:
        """Return the accuracy under PGD-10 at one eps with all these gradients; at eps 0 the clean accuracy.

        `prefix` distinguishes its units from those of another point, whose eps may print the same.
        """
        index = sample[self.evidence.correct[sample]]
        job = partial(search, attack=PGD, eps=eps, seed=self.seed)
        for gradient_from in gradients if eps > 0 else ():
            stage = labelled(pgd_at(eps), gradient_from)
            units = self.units(stage, index, job, PGD.passes, prefix=prefix, gradient_from=gradient_from)
            broken = [chunk[work.arrays["broken"]] for chunk, work in units]
            index = np.setdiff1d(index, np.concatenate(broken)) if broken else index
        return CurvePoint(eps=eps, n=len(sample), accuracy=len(index) / len(sample))

    def agreement(self, sample: Any, gradient_from: GradientSource) -> Agreement:
        """Compare a gradient graph's predictions with the artifact's, at clean images and worst points."""
        n = same = 0
        near: int | None = 0 if self.target.session.card().judge_command else None
        job = partial(agree, evidence=self.evidence, eps=self.eps, seed=self.seed)
        costs = AGREE if near is None else AGREE_OF_A_PROCESS
        stage = labelled("gradient graph", gradient_from)
        for chunk, work in self.units(stage, sample, job, costs, gradient_from=gradient_from):
            correct = self.evidence.correct[chunk]
            clean = work.arrays["clean"] == self.evidence.clean_prediction[chunk]
            worst = (work.arrays["worst"] == self.evidence.adversarial_prediction[chunk])[correct]
            n, same = n + len(clean) + len(worst), same + int(clean.sum() + worst.sum())
            if near is not None:
                near += int(work.arrays["near"].sum())
        return Agreement(n=n, same_prediction=same, near=near, images=None if near is None else len(sample))

    def probe(self, sample: Any) -> Probe:
        """Compare several answers of the artifact to the same images."""
        counts = {"randomised": 0, "probabilities": 0, "otherwise_alone": 0}
        for _, work in self.units("repeated passes", sample, repeat, REPEAT):
            counts = {name: count + int(work.arrays[name].sum()) for name, count in counts.items()}
        return Probe(n=len(sample), **counts)

    def _standing(self, index: Any) -> Any:
        standing = self.evidence.correct
        if index is not None:
            standing &= np.isin(self.evidence.index, index)
        return standing

    def _attack(
        self, attack: Attack, row: int, standing: Any, gradient_from: GradientSource, *, cascade: bool
    ) -> AttackRow:
        """Run one attack on the images set in `standing` (bool [N]), and unset those that it breaks."""
        index, gradient_from = np.flatnonzero(standing), gradient_from if attack.uses_gradient else "none"
        label = labelled(attack.name, gradient_from)
        costs: dict[str, Any] = {"seconds": 0.0, "forwards": 0, "gradients": 0}
        job = partial(search, attack=attack, eps=self.eps, seed=self.seed)
        if attack.bounded:
            job = partial(job, evidence=self.evidence, lattice=self.lattice)
            self.evidence.began(label, gradient_from)
        units = self.units(
            label,
            index,
            job,
            attack.passes + (CLASSIFY if self.lattice and attack.bounded else Passes()),
            prefix=f"{row}-",
            most=attack.unit,
            gradient_from=gradient_from,
            do=search_all,
        )
        for chunk, work in units:
            if attack.bounded:
                self.evidence.update(row, label, gradient_from, chunk, work.arrays)
            standing[chunk] = ~work.arrays["broken"]
            costs = {cost: total + getattr(work, cost) for cost, total in costs.items()}
        broken = int(len(index) - standing[index].sum())
        return self._row(attack.name, len(index), broken, cascade=cascade, gradient=gradient_from, **costs)

    def _row(self, name: str, attacked: int, broken: int, **rest: Any) -> AttackRow:
        left, n = attacked - broken, len(self.target.images)
        return AttackRow(name=name, attacked=attacked, broken=broken, accuracy=left / n, ci95=wilson(left, n), **rest)

    def units(
        self,
        stage: str,
        index: Any,
        job: Job,
        costs: Passes,
        prefix: str = "",
        most: int = UNIT,
        gradient_from: GradientSource = "own",
        do: Callable[[Target, Sequence[Any], Job, Follow], Generator[Work]] = measure_all,
    ) -> Iterator[tuple[Any, Work]]:
        """Yield the chunks of `index`, each with the work of its unit.

        `costs` are the job's most passes per image; `prefix` distinguishes stages of the same name.
        """
        self.progress.stage(stage, len(index))
        target, name = self.target.following(gradient_from), f"{self.prefix}{prefix}{stage}"
        units = [(as_file_name(f"{name}-{number}"), chunk) for number, chunk in enumerate(target.chunks(index, most))]
        missing = [chunk for name, chunk in units if not self.ledger.holds(name)]
        with closing(do(target, missing, job, partial(Headway, most=costs, tell=self.progress.advance))) as works:
            for name, chunk in units:
                if self.ledger.holds(name):
                    self.progress.advance(len(chunk), fresh=False)
                yield chunk, self.ledger.unit(name, chunk, partial(_confirmed, works, target.session))


def _confirmed(works: Generator[Work], session: Session) -> Work:
    """Return the next unit's work after the session confirmed its answers, so that none in doubt is recorded."""
    work = next(works)
    session.confirm()
    return work
