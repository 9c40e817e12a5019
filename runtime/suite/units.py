"""The units of work: jobs on one chunk of images, and the arrays that they return."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from runtime.attacks import SMALL_UNIT, UNIT
from runtime.attacks.geometry import linf
from runtime.attacks.losses import cross_entropy, one_hot
from runtime.attacks.noise import Noise
from runtime.attacks.oracle import Oracle, Points, margins, predictions
from runtime.attacks.passes import Headway, Passes
from runtime.batches.side_by_side import Asking, side_by_side
from runtime.errors import BadModel
from runtime.images.uint8_grid import to_lattice
from runtime.session import BorrowedGradient
from runtime.suite.journal import Work

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from runtime.attacks import Attack
    from runtime.attacks.oracle import Witness
    from runtime.images.image_set import ImageSet
    from runtime.records.request import GradientSource
    from runtime.session import Differentiator, Session
    from runtime.suite.evidence import Evidence

UNIT_VALUES = 2**24
"""The most values of all images in a unit, 64 MiB in float32. So units of large images have fewer images."""
PASSES = 5
"""The number of answers to the same image, which must be equal."""
SAME = 1e-4
"""The largest difference of equal answers, relative to the image's largest logit after subtracting the mean."""
SAME_ALONE = 0.1
"""The same limit between an answer in a batch and one alone: other kernels round differently, also before a step."""
NEAR, NEAR_QUANTISED = 0.1, 0.5
"""The largest difference between a judge's logits and those of the graph that it claims to run, relative to the larger
of the two after subtracting each mean; the second is for a judge that rounds to integers."""
SHORT = 0.3
"""In the test whether logits are near, each pixel's step is shorter than eps by a random share of at most SHORT."""
PROBABILITY = 1e-3
"""The largest difference from 1 of the sum of an image's probabilities."""

Arrays = dict[str, Any]
Job = Callable[[Oracle, "Target", Points], Arrays]
"""A job: it returns arrays by name, one row per image."""
Follow = Callable[[int], Headway]
"""Returns a Headway for a number of images."""

CLASSIFY = Passes(forwards=1)
REPEAT = Passes(forwards=PASSES + 1)
AGREE, AGREE_OF_A_PROCESS = Passes(gradients=2), Passes(forwards=3, gradients=3)
"""The passes per image of the jobs below; a `search` costs what its attack does."""


@dataclass(frozen=True)
class Target:
    """The artifact under attack, and its images.

    Args:
        session: the artifact.
        images: the set to which indices refer.
        classes: the number of classes.
        batch: the images that a session is asked at once.
        to_device: turns numpy float32 or int64 into the session's arrays, on its device.
        lender: another session whose gradient attacks also follow, the parent's; None without one.
        plain: opens the artifact without the engine's optimisations; None if that is not possible.
        witness: runs the same graph in ONNX Runtime, to check a judge process; None if an engine judges.
        full: whether attacks on several units run side by side, so that batches are full.

    """

    session: Session
    images: ImageSet
    classes: int
    batch: int
    to_device: Callable[[Any], Any] = np.asarray
    lender: Differentiator | None = None
    plain: Callable[[], Session] | None = None
    full: bool = False
    witness: Witness | None = None

    def following(self, gradient_from: GradientSource) -> Target:
        """Return the target with the gradient of one source."""
        if gradient_from != "parent" or self.lender is None:
            return self
        return replace(self, session=BorrowedGradient(self.session, self.lender))

    def points(self, index: Any) -> Points:
        """Return the images at `index` (int64 [B]) as points under attack."""
        label = self.images.labels[index]
        return Points(
            self.to_device(self.images.as_float(index)),
            one_hot(self.to_device(label), self.classes),
            label,
            index,
            np.arange(len(index)),
        )

    def chunks(self, index: Any, most: int = UNIT) -> Iterator[Any]:
        """Yield `index` in chunks for units, of at most `most` images.

        The chunks do not depend on the batch size, because they define the units of a run.
        """
        size = max(1, min(most, UNIT_VALUES // prod(self.images.images.shape[1:])))
        for start in range(0, len(index), size):
            yield index[start : start + size]


def measure(target: Target, index: Any, job: Job, follow: Follow | None = None) -> Work:
    """Do a job on the images at `index` (int64 [B]), and return its arrays and costs."""
    headway = follow(len(index)) if follow else None
    oracle, began = Oracle(target.session, target.batch, target.witness, headway), time.perf_counter()
    arrays = job(oracle, target, target.points(index))
    seconds = time.perf_counter() - began
    if headway:
        headway.end()
    return Work(arrays, seconds, oracle.forwards, oracle.gradients)


def measure_all(target: Target, chunks: Sequence[Any], job: Job, follow: Follow) -> Generator[Work]:
    """Yield what `measure` returns for each chunk."""
    yield from (measure(target, chunk, job, follow) for chunk in chunks)


def search_all(target: Target, chunks: Sequence[Any], job: Job, follow: Follow) -> Generator[Work]:
    """Yield what `measure` returns for each chunk, for a job that is `search`. Closing it stops running jobs.

    If batches should be full and hold several small units, parts of chunks run side by side, so that points of one part
    replace those that another has broken. The seconds of a chunk are then the time for which it was waited.
    """
    if not target.full or target.batch < 2 * SMALL_UNIT:
        yield from measure_all(target, chunks, job, follow)
        return
    parts = [np.split(chunk, range(SMALL_UNIT, len(chunk), SMALL_UNIT)) for chunk in chunks]
    jobs = [Asking(len(part), partial(_measure_alone, target, part, job, follow)) for each in parts for part in each]
    with closing(side_by_side(target.session, jobs, target.batch)) as works:
        for each in parts:
            began = time.perf_counter()
            done = [next(works) for _ in each]
            arrays = {name: np.concatenate([work.arrays[name] for work in done]) for name in done[0].arrays}
            forwards, gradients = (sum(getattr(work, cost) for work in done) for cost in ("forwards", "gradients"))
            yield Work(arrays, time.perf_counter() - began, forwards, gradients)


def _measure_alone(target: Target, index: Any, job: Job, follow: Follow, session: Session) -> Work:
    return measure(replace(target, session=session), index, job, follow)


def classify(oracle: Oracle, target: Target, points: Points) -> Arrays:
    """Return `prediction` int64 [B] and `margin` float32 [B] of the clean images.

    Raises:
        BadModel: the artifact's logits have another shape than [B, K].

    """
    z = oracle.logits(points, points.x)
    if z.shape != (len(points), target.classes):
        raise BadModel(
            f"the model's logits have shape {z.shape}, and should have {(len(points), target.classes)}",
            hint="a classifier answers one row for each image and one column for each class",
        )
    return {"prediction": predictions(z), "margin": margins(z, points.label)}


def classify_plainly(oracle: Oracle, target: Target, points: Points) -> Arrays:
    """Return the `prediction` int64 [B] of the clean images without the engine's optimisations."""
    assert target.plain is not None
    plain = Oracle(target.plain(), target.batch, headway=oracle.headway)
    return {"prediction": predictions(plain.logits(points, points.x))}


def search(
    oracle: Oracle,
    target: Target,
    points: Points,
    *,
    attack: Attack,
    eps: float,
    seed: int,
    evidence: Evidence | None = None,
    lattice: bool = False,
) -> Arrays:
    """Return what an attack found, as `Evidence.update` takes it; without evidence only `broken` and `spared`.

    With `lattice` also returns `lattice` bool [B]: whether the point is classified correctly after rounding to the
    uint8 lattice in the ball. For an artifact that takes bytes, the points are the rounded ones that it saw.
    """
    found = attack.run(oracle, points, eps, seed)
    if evidence is None:
        return {"broken": found.broken, "spared": np.isin(points.index, list(oracle.spared))}
    x, distance = found.x, found.linf
    if target.session.card().facts.takes_bytes:
        clean = target.images.as_float(points.index)
        x = to_lattice(x, clean, eps)
        distance = linf(x, clean)
    kept = evidence.worse(points.index, found.broken, found.margin) & evidence.keeps(points.index)
    arrays = {
        "broken": found.broken,
        "adversarial_prediction": found.prediction,
        "linf": distance,
        "margin": found.margin,
        "zero_gradient": np.isin(points.index, list(oracle.zero_gradient)),
        "adversarial": x[kept],
    }
    if lattice:
        rounded = to_lattice(x, target.images.as_float(points.index), eps)
        arrays["lattice"] = predictions(oracle.logits(points, target.to_device(rounded))) == points.label
    return arrays | {"spared": np.isin(points.index, list(oracle.spared))}


def repeat(oracle: Oracle, target: Target, points: Points) -> Arrays:
    """Ask for the same answers PASSES times, and once more image by image, as a device may.

    Returns `randomised` bool [B]: answers differ in class or by more than SAME; `probabilities` bool [B]: logits are
    non-negative and sum to one; `otherwise_alone` bool [B]: the answer alone differs in class or by more than
    SAME_ALONE.
    """
    answers = np.stack([oracle.logits(points, points.x) for _ in range(PASSES)])
    singly = (points.rows(np.arange(len(points)) == row) for row in range(len(points)))
    alone = np.concatenate([oracle.logits(one, one.x) for one in singly])
    largest = np.abs(answers[0] - answers[0].mean(axis=1, keepdims=True)).max(axis=1)
    apart = np.abs(answers - answers[0]).max(axis=(0, 2)) > SAME * largest
    otherwise = np.abs(alone - answers[0]).max(axis=1) > SAME_ALONE * largest
    otherwise |= predictions(alone) != predictions(answers[0])
    other_class = (answers.argmax(axis=2) != answers[0].argmax(axis=1)).any(axis=0)
    sums_to_one = np.abs(answers[0].sum(axis=1) - 1) <= PROBABILITY
    return {
        "randomised": apart | other_class,
        "probabilities": sums_to_one & (answers[0] >= 0).all(axis=1),
        "otherwise_alone": otherwise,
    }


def agree(oracle: Oracle, target: Target, points: Points, *, evidence: Evidence, eps: float, seed: int) -> Arrays:
    """Return the gradient graph's classes of the `clean` images and at their `worst` points: int64 [B] each.

    For a judge process also returns `near`, bool [B]: its logits equal the graph's up to rounding at these points, and
    at the end of a step along the gradient by most of eps. A process may remember earlier points; the end of the step
    looks like a point of an attack, but is new to it.
    """
    worst = evidence.adversarial[np.searchsorted(evidence.kept, points.index)]
    loss = cross_entropy(points.one_hot)
    at = {"clean": points.x, "worst": target.to_device(worst)}
    lent = {name: oracle.loss_gradient(points, x, loss) for name, x in at.items()}
    arrays = {name: predictions(z) for name, (z, _, _) in lent.items()}
    card = target.session.card()
    if card.judge_command:
        most = NEAR_QUANTISED if card.facts.quantised else NEAR
        xp, shape = array_namespace(points.x), points.x.shape[1:]
        most_of_eps = eps * (1 - SHORT * np.abs(Noise(seed, "agreement").uniform(points.index, shape)))
        at["step"] = xp.clip(points.x + target.to_device(most_of_eps) * xp.sign(lent["clean"][2]), 0, 1)
        lent["step"] = oracle.loss_gradient(points, at["step"], loss)
        close = [near(oracle.logits(points, x), lent[name][0], most) for name, x in at.items()]
        arrays["near"] = np.all(close, axis=0)
    return arrays


def near(ours: Any, theirs: Any, most: float) -> Any:
    """Return where two answers [B, K], each minus its mean, differ by at most `most` times the largest: bool [B]."""
    ours, theirs = (
        np.asarray(z, np.float64) - np.mean(z, axis=1, keepdims=True, dtype=np.float64) for z in (ours, theirs)
    )
    return np.abs(ours - theirs).max(axis=1) <= most * np.maximum(np.abs(ours), np.abs(theirs)).max(axis=1)
