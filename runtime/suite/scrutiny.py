"""Tests that show whether a run's attacks can be believed: tests of the gradient, and the blind control."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import AGAIN, CONTROLS, SMOOTHED
from runtime.records.measurements import Fusion, GradientTest, Searched
from runtime.records.request import labelled
from runtime.statistics import fewest_beyond
from runtime.suite.gradient_tests import CROSS, SCALES, STEADY, cross, hold, holding, steady
from runtime.suite.units import CLASSIFY, classify_plainly, search, search_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runtime.attacks import Attack
    from runtime.attacks.passes import Passes
    from runtime.records.measurements import AttackRow
    from runtime.records.request import GradientSource
    from runtime.suite.evidence import Evidence
    from runtime.suite.journal import Work

LEAST_CONCORDANCE, LEAST_STEADINESS = 0.5, 0.5
"""Limits for an image's gradient. Honest networks stay above 0.8 over a short step, and mostly over a long one too."""
LEAST_RELATION, WIDE = 0.1, 4 / 255
"""The limit for a surrogate, over a step of eps/2 but at least WIDE. Int8 stays above 0.5, a decoy near 0."""
LARGEST_JUMPS = (0.5, 0.003)
"""Limits for jumps of the margin after HALVINGS. Honest networks stay below 0.1 and 0.001."""
ONE_STEP = 1.0
"""The limit for a surrogate, after the first of HALVINGS: half of the change from end to end, in a 512th of the line.

Coarse roundings of activations, images and logits stayed below it on nine lines of ten; a hidden choice of a class
jumps by 1.7 to 2.8.
"""
TOLERATED, MOST_UNRELATED, LEVEL = 0.1, 0.5, 0.01
"""More failing images than a share TOLERATED (MOST_UNRELATED for a surrogate) explains, at LEVEL, are a finding."""


def most_tolerated(n: int) -> int:
    """Return the most images of n that may fail a test of the gradient."""
    return fewest_beyond(n, TOLERATED, LEVEL) - 1


def most_unrelated(n: int) -> int:
    """Return the most images of n on which a surrogate may be unrelated to the artifact."""
    return fewest_beyond(n, MOST_UNRELATED, LEVEL) - 1


def doubtful(test: GradientTest | None) -> bool:
    """Return whether a test of the gradient is near its limit: at least half as many images failed as would block."""
    if test is None:
        return False
    counts = [(test.apart_near, test.n), (test.apart_far, test.n), (test.unsteady, test.n), (test.jumps, test.lines)]
    return any(failed is not None and failed >= (most_tolerated(n or 0) + 1) / 2 for failed, n in counts)


@dataclass(frozen=True)
class Scrutiny:
    """Tests on images that the suite has attacked.

    Every `sample`, `indices`, `index` and `left` is int64 [M]: positions of images in the set, rising.

    Args:
        units: runs a job on the images at an index, unit by unit (`Campaign.units`).
        evidence: after the attacks.
        eps: radius of the L-infinity ball.
        seed: of the noise.
        gradients: the sources of the gradients that the attacks followed.

    """

    units: Callable[..., Iterator[tuple[Any, Work]]]
    evidence: Evidence
    eps: float
    seed: int
    gradients: Sequence[GradientSource]

    def gradient_test(self, sample: Any, *, surrogate: bool) -> GradientTest | None:
        """Test the first gradient that attacks follow on the images of the sample that survive.

        Returns None if there is no such image or no gradient. Broken images are left out: they are proven, and in
        networks without robustness the gradient changes a lot within eps of them.
        """
        index = sample[self.evidence.robust[sample]]
        if not len(index) or self.eps == 0 or not self.gradients:
            return None
        scales = (SCALES[-1], max(SCALES[-1], WIDE / self.eps)) if surrogate else SCALES
        job = partial(hold, eps=self.eps, seed=self.seed, evidence=self.evidence, scales=scales)
        held = self._values("gradient holds", index, job, holding(scales))
        apart = [int((held[f"apart-{row}"] < LEAST_CONCORDANCE).sum()) for row in range(len(scales))]
        crossed = self._values("margin jumps", index, partial(cross, seed=self.seed), CROSS)
        limits = (ONE_STEP,) if surrogate else LARGEST_JUMPS
        jumps = np.any([crossed[f"jump-{row}"] > most for row, most in enumerate(limits)], axis=0)
        test = GradientTest(
            n=len(index),
            surrogate=surrogate,
            apart_far=apart[0],
            lines=int(np.isfinite(crossed["jump-0"]).sum()),
            jumps=int(jumps.sum()),
        )
        if surrogate:
            return test.model_copy(update={"unrelated": int((held["apart-1"] < LEAST_RELATION).sum())})
        turned = self._values("gradient steady", index, partial(steady, eps=self.eps, seed=self.seed), STEADY)
        unsteady = int((turned["steadiness"] < LEAST_STEADINESS).sum())
        return test.model_copy(update={"apart_near": apart[0], "apart_far": apart[1], "unsteady": unsteady})

    def blind_control(self, indices: Any) -> tuple[Searched, Any]:
        """Run the blind control on the images at `indices` that survive.

        Each of CONTROLS runs on what the earlier ones left, then AGAIN on what they broke. Also returns the indices of
        the images that are left.
        """
        return self._search("blind", indices[self.evidence.robust[indices]], {}, CONTROLS)

    def smoothed_control(self, left: Any) -> Searched:
        """Run SMOOTHED on the images that the blind control left, then AGAIN on what they broke."""
        return self._search("doubt", left, {}, (), SMOOTHED)[0]

    def square_alone(self, attacks: Sequence[AttackRow]) -> Searched | None:
        """Count the images that Square broke and no gradient attack of the run did; None unless both kinds ran.

        Args:
            attacks: the rows of the attacks in the ball.

        """
        fell = self.evidence.fell
        seen = [fell[row.label] for row in attacks if row.gradient != "none" and row.label in fell]
        if "square" not in fell or not seen:
            return None
        stood = self.evidence.correct & ~np.any(seen, axis=0)
        broken = np.flatnonzero(stood & fell["square"])
        return self._search("square", np.flatnonzero(stood), {"square": broken}, ())[0]

    def fusion(self, sample: Any) -> Fusion:
        """Compare the artifact's classes with and without the engine's optimisations."""
        plain = self._values("unoptimised", sample, classify_plainly, CLASSIFY)["prediction"]
        label, optimised = self.evidence.label[sample], self.evidence.clean_prediction[sample]
        return Fusion(
            n=len(sample),
            same_prediction=int((plain == optimised).sum()),
            only_optimised=int(((optimised == label) & (plain != label)).sum()),
            only_plain=int(((plain == label) & (optimised != label)).sum()),
        )

    def _search(
        self,
        prefix: str,
        index: Any,
        broken: dict[str, Any],
        searches: Sequence[Attack],
        by_gradient: Sequence[Attack] = (),
    ) -> tuple[Searched, Any]:
        """Run searches on the images at `index`. `broken` has the indices of images that broke before, by search.

        Also returns the indices of the images that are left.
        """
        costs: dict[str, Any] = {"seconds": 0.0, "forwards": 0, "gradients": 0}
        tries: list[tuple[Attack, GradientSource]] = [(attack, "none") for attack in searches]
        tries += [(attack, source) for source in self.gradients for attack in by_gradient]
        broken = dict(broken)
        for attack, gradient_from in tries:
            left = np.setdiff1d(index, _all(broken))
            broken[labelled(attack.name, gradient_from)] = self._broken(prefix, attack, gradient_from, left, costs)
        left, alone = np.setdiff1d(index, _all(broken)), _all(broken)
        for gradient_from in self.gradients:
            for attack in AGAIN:
                alone = np.setdiff1d(alone, self._broken(prefix, attack, gradient_from, alone, costs))
        by = {name: len(indices) for name, indices in broken.items()}
        return Searched(n=len(index), broken=sum(by.values()), alone=len(alone), by=by, **costs), left

    def _broken(
        self, prefix: str, attack: Attack, gradient_from: GradientSource, index: Any, costs: dict[str, Any]
    ) -> Any:
        """Return the indices of the images that an attack breaks, and add its costs to `costs`."""
        job, found = partial(search, attack=attack, eps=self.eps, seed=self.seed), [index[:0]]
        stage = labelled(attack.name, gradient_from)
        units = self.units(
            stage, index, job, attack.passes, prefix=f"{prefix}-", gradient_from=gradient_from, do=search_all
        )
        for chunk, work in units:
            self.evidence.spare(chunk, work.arrays)
            found.append(chunk[work.arrays["broken"]])
            for cost in costs:
                costs[cost] += getattr(work, cost)
        return np.concatenate(found)

    def _values(self, stage: str, index: Any, job: Any, costs: Passes) -> dict[str, Any]:
        led = self.gradients[0] if self.gradients else "none"
        works = [work.arrays for _, work in self.units(stage, index, job, costs, gradient_from=led)]
        return {name: np.concatenate([arrays[name] for arrays in works]) for name in works[0]}


def _all(indices: dict[str, Any]) -> Any:
    return np.sort(np.concatenate([np.zeros(0, np.int64), *indices.values()]))
