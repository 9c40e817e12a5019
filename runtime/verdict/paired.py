"""Comparisons of two runs on the same images, image by image, if the difference is due to the artifacts alone.

All comparisons use this module. `verify --against` refuses a run that does not fit; `compare` and `report` show it, and
say why it is not paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from runtime.errors import BadData
from runtime.images.npz import UNREADABLE, open_npz
from runtime.records.bench import load_bench
from runtime.records.report import REPORT, Paired, Report, read_report
from runtime.statistics import Pairs, mcnemar, paired_difference
from runtime.suite.evidence import STANDS
from runtime.suite.plan import BLIND
from runtime.verdict import sequential
from runtime.words import exact_radius

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runtime.records.bench import Bench
    from runtime.records.report import Artifact
    from runtime.records.request import Request
    from runtime.spec import ThreatModel
    from runtime.suite.evidence import Evidence
    from runtime.verdict.options import VerifyOptions

EVIDENCE = "evidence.npz"
NEEDED = ("index", "label", "clean_prediction", "broken_by")
"""The arrays of evidence.npz with which images are matched."""
FINISHED = "name the --out of a finished verify"


@dataclass(frozen=True)
class Finished:
    """A finished run, read back. `images` has the NEEDED arrays of its evidence by name, nothing without evidence.

    `bench` is the content of bench.json, if it is in the run's directory.
    """

    where: str
    report: Report
    images: dict[str, Any]
    bench: Bench | None = None

    @property
    def robust(self) -> Any:
        """Whether each image was classified correctly at every point judged: bool [N]."""
        return self.images["broken_by"] == STANDS


def read_finished(path: Path) -> Finished:
    """Read a run directory or a report.json, with the evidence beside it if there is any.

    Raises:
        BadData: the report is missing or damaged, or the evidence is damaged or of another run.

    """
    file = path / REPORT if path.is_dir() else path
    report, evidence = read_report(file), file.parent / EVIDENCE
    measured = load_bench(file.parent)
    if file.name != REPORT or not evidence.exists():
        return Finished(str(path), report, {}, measured)
    try:
        with open_npz(evidence) as arrays:
            images = {name: arrays[name] for name in NEEDED}
        if any(array.shape != (report.data.n,) for array in images.values()):
            raise ValueError(f"it is not of the {report.data.n} images of {file}")
    except (*UNREADABLE, KeyError) as error:
        raise BadData(f"{evidence} cannot be read: {error}", hint=FINISHED) from None
    return Finished(str(path), report, images, measured)


def read_reference(directory: Path) -> Finished:
    """Read a run directory to compare with, image by image.

    Raises:
        BadData: report or evidence is missing or damaged.

    """
    run = read_finished(directory)
    if not run.images:
        raise BadData(f"{directory / EVIDENCE} is missing", hint=FINISHED)
    return run


class Obstacle(NamedTuple):
    """The reason why the worst cases of two runs cannot be compared, and what to do about it."""

    why: str
    hint: str


def obstacle(mine: Request, its: Request) -> Obstacle | None:
    """Return a difference of two requests that prevents a comparison: in images, threat model, attacks or settings.

    Evidence has only the attack that first broke an image. So it does not tell what the common attacks alone would have
    left, and a difference of worst cases could be due to the attacks and not to the artifacts.
    """
    if mine.data.sha256 != its.data.sha256:
        return Obstacle("the two runs used different images", "run it again on the same images, as by --data")
    here, there = mine.all_attacks, its.all_attacks
    if found := other_threat(mine.threat_model, its.threat_model) or other_attacks(here, there):
        return found
    if found := other_lender(mine, its):
        return found
    if otherwise := [name for name in here if here[name] != there[name]]:
        return Obstacle(f"the settings of {', '.join(otherwise)} differ", _again(here))
    return None


def other_lender(mine: Request, its: Request) -> Obstacle | None:
    """Return the obstacle if two runs borrowed gradients from different engines, one of which may mislead more."""
    if mine.lender == its.lender or mine.gradient_backend is its.gradient_backend is None:
        return None
    why = f"the attacks followed gradients of {mine.lender} and of {its.lender}"
    return Obstacle(why, f"run it again with --gradient-backend {mine.lender}")


def other_threat(mine: ThreatModel, its: ThreatModel) -> Obstacle | None:
    """Return the obstacle if the threat models differ."""
    if mine == its:
        return None
    return Obstacle(f"the threat models are {mine} and {its}", f"run it again with --eps {exact_radius(mine.eps)}")


def other_attacks(mine: Iterable[str], its: Iterable[str]) -> Obstacle | None:
    """Return the obstacle if one run has attacks that the other does not have."""
    here, there = dict.fromkeys(mine), dict.fromkeys(its)
    if alone := [name for name in {**here, **there} if (name in here) != (name in there)]:
        return Obstacle(f"only one of the two ran {', '.join(alone)}", _again(here))
    return None


def _again(attacks: Iterable[str]) -> str:
    return f"run it again with --attacks {','.join(('clean', *attacks))}"


def check_comparable(request: Request, reference: Finished | None) -> None:
    """Raise `BadData` unless the other run has the same images, attacks and threat model, and did not stop early.

    With early stopping, the number of images depends on the results, and then no paired interval is valid.
    """
    if reference is None:
        return
    check_ran_to_its_end(reference)
    _refuse(obstacle(request, reference.report.request))


def check_askable(options: VerifyOptions, reference: Finished) -> None:
    """Raise `BadData` if another run cannot fit the options, whatever the subject is.

    Square in the other run is no obstacle, because the subject may be one to which the plan adds Square.
    """
    check_ran_to_its_end(reference)
    mine, its = options.attacks, reference.report.request
    _refuse(other_threat(options.threat_model_or(its.threat_model), its.threat_model))
    _refuse(other_attacks(mine, [name for name in its.all_attacks if name != BLIND or name in mine]))


def check_ran_to_its_end(reference: Finished) -> None:
    """Raise `BadData` if another run had early stopping, so that its number of images depends on its results."""
    if reference.report.request.until_decided:
        raise BadData("the run to compare with stopped early", hint="run it again without --until-decided")


def _refuse(found: Obstacle | None) -> None:
    if found:
        raise BadData(f"the run to compare with does not fit: {found.why}", hint=found.hint)


def check_shared(reference: Finished, index: Any, labels: Any) -> None:
    """Raise `BadData` unless the other run judged some of the images at `index`, with the same `labels`."""
    shared, here, there = _shared(index, reference)
    if not len(shared):
        raise BadData("the run to compare with shares no images", hint="run both with the same --n and --shard")
    if not np.array_equal(np.asarray(labels)[here], reference.images["label"][there]):
        raise BadData("the run to compare with has other labels for the same images")


def _shared(index: Any, reference: Finished) -> tuple[Any, Any, Any]:
    """Return the indices of images that both judged, rising, and their rows in `index` and in the other run."""
    return np.intersect1d(index, reference.images["index"], return_indices=True)


@dataclass(frozen=True)
class Matched:
    """A comparison of two finished runs on the images that both judged.

    Args:
        both: which images survive in each run.
        same_prediction: the number of clean images for which both predict the same class, correct or not.
        worst_case: the comparison of worst cases; None if they cannot be compared.
        why: the reason if they cannot.

    """

    both: SharedImages
    same_prediction: int
    worst_case: Paired | None
    why: str = ""


def compare_finished(this: Finished, that: Finished) -> Matched:
    """Compare two finished runs.

    Raises:
        BadData: the images of the two runs cannot be matched.

    """
    if not (this.images and that.images):
        raise BadData(f"a {REPORT} has no {EVIDENCE} beside it")
    mine, its = this.report.request, that.report.request
    found = obstacle(mine, its)
    if found and mine.data.sha256 != its.data.sha256:
        raise BadData(found.why, hint=found.hint)
    check_shared(that, this.images["index"], this.images["label"])
    index, here, there = _shared(this.images["index"], that)
    both = SharedImages(index, this.robust[here], that.robust[there])
    same = int((this.images["clean_prediction"][here] == that.images["clean_prediction"][there]).sum())
    if found:
        return Matched(both, same, None, found.why)
    if mine.until_decided or its.until_decided:
        return Matched(both, same, None, "one of the two stopped early: no interval holds for the change")
    if not (this.report.robust_accuracy and that.report.robust_accuracy):
        return Matched(both, same, None, "neither run attacked within eps: there is no worst case to compare")
    return Matched(both, same, paired_record(_called(that.report.artifact), both.pairs()))


@dataclass(frozen=True)
class SharedImages:
    """The images that both runs attacked: rising indices, int64 [M], and which survive in each run, bool [M] each."""

    index: Any
    this: Any
    that: Any

    def pairs(self) -> Pairs:
        """Return the counts of images by where they survive."""
        this, that = self.this, self.that
        return Pairs(*(int(both.sum()) for both in (this & that, this & ~that, ~this & that, ~this & ~that)))

    def values(self, order: Any) -> Any:
        """Return each image's difference, mapped from [-1, 1] to [0, 1], in the order of the indices in `order`."""
        row_of = np.full(int(order.max()) + 1, -1)
        row_of[self.index] = np.arange(len(self.index))
        rows = row_of[order]
        rows = rows[rows >= 0]
        return (1 + self.this[rows].astype(float) - self.that[rows]) / 2


def match_images(evidence: Evidence, reference: Finished) -> SharedImages:
    """Return the images that both runs attacked; `check_shared` has made sure that there are some."""
    index, here, there = _shared(evidence.index, reference)
    return SharedImages(index, evidence.robust[here], reference.robust[there])


def _called(artifact: Artifact) -> str:
    return f"{artifact.name} {artifact.precision} on {artifact.engines}, {artifact.sha256[:12]}"


def pair_with_reference(evidence: Evidence, reference: Finished, order: Any = None) -> Paired:
    """Compare with another run. `order` has the indices in the order of judging, for a run with early stopping."""
    both, against = match_images(evidence, reference), _called(reference.report.artifact)
    if order is None:
        return paired_record(against, both.pairs())
    low, high = sequential.interval(both.values(order))
    return paired_record(against, both.pairs()).model_copy(
        update={"ci95": (2 * low - 1, 2 * high - 1), "mcnemar_p": None}
    )


def paired_record(against: str, pairs: Pairs) -> Paired:
    """Return the comparison for a number of images that was fixed beforehand."""
    return Paired(
        against=against,
        **pairs._asdict(),
        difference=pairs.difference,
        ci95=paired_difference(pairs),
        mcnemar_p=mcnemar(pairs),
    )
