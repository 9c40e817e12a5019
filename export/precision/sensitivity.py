"""What int8 costs, measured under attack; and which layers to leave in float16 where that is too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from export.graph.passes import classes_of
from export.precision.candidate import Candidate
from export.precision.mixed import keep, layers, unquantized
from runtime.attacks import PGD
from runtime.batches.halving import BatchHalving
from runtime.suite.campaign import Campaign
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.log import log
from runtime.terminal.progress import Silent, progress_on_stderr
from runtime.words import percent

if TYPE_CHECKING:
    from export.graph.passes import Prepared
    from runtime.images.image_set import ImageSet
    from runtime.terminal.progress import Progress

MOST = 0.01
"""Clean or robust accuracy that plain int8 may cost: one point."""
IMAGES = 512
"""Images that the cost is measured on, at most."""
RANKED = 128
"""Images that layers are ranked on."""
BATCH = 64


@dataclass(frozen=True)
class Accuracy:
    """Fractions of the images: right, and still right under PGD-10 with the graph's own gradient, if that was asked."""

    clean: float
    pgd: float | None

    def lost(self, other: Accuracy) -> float:
        """Return the larger loss of `other` against this, 0 where it loses nothing; 0.81 less 0.8 is 0.01, no more."""
        under_attack = 0.0 if self.pgd is None or other.pgd is None else self.pgd - other.pgd
        return round(max(self.clean - other.clean, under_attack, 0.0), 9)

    def __str__(self) -> str:
        """Return both in words."""
        return f"clean {percent(self.clean)}" + ("" if self.pgd is None else f", PGD-10 {percent(self.pgd)}")


@dataclass(frozen=True)
class Stages:
    """Stages of a progress that begin with the name of the graph.

    Args:
        of: the graph, in words.
        progress: told of them.

    """

    of: str
    progress: Progress

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` images."""
        self.progress.stage(f"{self.of}, {name}", total)

    def advance(self, count: float, *, fresh: bool = True) -> None:
        """Count images as done."""
        self.progress.advance(count, fresh=fresh)


def accuracy(candidate: Candidate, images: ImageSet, eps: float | None, progress: Progress | None = None) -> Accuracy:
    """Measure a graph by the attack that chooses checkpoints in training; clean alone without `eps`.

    Raises:
        BadModel: it has no gradient graph, and is to be attacked.

    """
    classes, progress = classes_of(candidate.forward.model), progress or Silent()
    target = Target(BatchHalving(candidate.session), images, classes, BATCH, np.asarray)
    evidence = clean_pass(target, 0, progress)
    pgd = None if eps is None else Campaign(target, evidence, eps, 0, progress).attack(PGD, 0).accuracy
    return Accuracy(float(evidence.correct.mean()), pgd)


def ranked(quantized: Prepared, single: Candidate, images: ImageSet) -> list[tuple[str, float]]:
    """Return the layers, the most sensitive first: each with the logit error of the graph that has it alone in int8.

    The error is the mean square over images and classes, on the first `RANKED` images.
    """
    x = images.as_float(slice(0, RANKED))
    exact = single.session.logits(x)
    known = layers(single.forward)
    errors = {}
    for name, value in known.items():
        others = set(known.values()) - {value}
        alone = Candidate(unquantized(quantized, single.forward, others), differentiable=False)
        errors[name] = float(np.square(alone.session.logits(x) - exact).mean())
    return sorted(errors.items(), key=lambda item: -item[1])


def chosen(
    quantized: Candidate, single: Candidate, images: ImageSet, eps: float | None
) -> tuple[tuple[str, ...], Candidate]:
    """Return the layers to keep in float16, none where int8 costs at most `MOST`, and the graph that keeps them.

    They are taken in order of `ranked`, 1, 2, 4 and so on, until what is left costs no more than that.

    Args:
        quantized: what `export.precision.calibrate.in_int8` made of `single`.
        single: the graph in float32.
        images: with their labels; the first `IMAGES` are used.
        eps: of PGD; None where there is no gradient to attack with.

    """
    images = images.rows(slice(0, IMAGES))
    exact, plain = (_told(*graph, images, eps) for graph in ((single, "fp32"), (quantized, "plain int8")))
    _say(images, exact, plain, "plain int8")
    if exact.lost(plain) <= MOST:
        return (), quantized
    names = [name for name, _ in ranked(quantized.forward, single, images)]
    count = 1
    while True:
        mixed = replace(quantized, forward=keep(quantized.forward, single.forward, names[:count]))
        what = f"int8 with {count} of {len(names)} layers in fp16"
        left = _told(mixed, what, images, eps)
        _say(images, exact, left, what)
        if exact.lost(left) <= MOST or count == len(names):
            return tuple(names[:count]), mixed
        count = min(2 * count, len(names))


def _told(candidate: Candidate, what: str, images: ImageSet, eps: float | None) -> Accuracy:
    """Return `accuracy`; stderr says how far it is, which takes minutes on large images."""
    with progress_on_stderr() as progress:
        return accuracy(candidate, images, eps, Stages(what, progress))


def _say(images: ImageSet, exact: Accuracy, measured: Accuracy, what: str) -> None:
    log.info(f"{what}, on {len(images)} images of {images.name}: {measured} (fp32: {exact})")
