"""Another run of the same images, to compare with image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime import sequential
from runtime.errors import BadData
from runtime.evidence import STANDS
from runtime.npz import UNREADABLE, open_npz
from runtime.report_schema import Paired, Report, Request, load_report
from runtime.statistics import Pairs, mcnemar, paired_difference

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.evidence import Evidence

EVIDENCE = "evidence.npz"


@dataclass(frozen=True)
class Reference:
    """Another run, read back: its report, and by image index its label and whether it stood."""

    report: Report
    label: dict[int, int]
    robust: dict[int, bool]


def read_reference(directory: Path) -> Reference:
    """Read a run directory to compare with.

    Raises:
        BadData: report or evidence is missing or damaged.

    """
    path = directory / EVIDENCE
    try:
        with open_npz(path) as file:
            index, labels, broken_by = (file[name].tolist() for name in ("index", "label", "broken_by"))
        label = dict(zip(index, labels, strict=True))
        robust = dict(zip(index, (row == STANDS for row in broken_by), strict=True))
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise BadData(f"{path} cannot be read: {error}", hint="name the --out of a finished verify") from None
    return Reference(load_report(directory), label, robust)


def check_comparable(request: Request, reference: Reference | None) -> None:
    """Raise `BadData` unless the other run is of the same images, attacks and threat model, and of images fixed before.

    Where it stopped early, how many there are depends on what was found: no paired interval holds for them.
    """
    other = reference.report.request if reference else request
    if reference and other.until_decided:
        raise BadData("the run to compare with stopped early", hint="run it again without --until-decided")
    names = ",".join(("clean", *request.all_attacks))
    for what, mine, its, how in (
        ("images", request.data.sha256, other.data.sha256, "the same request"),
        ("threat model", request.threat_model, other.threat_model, "the same request"),
        ("attacks", request.all_attacks, other.all_attacks, f"--attacks {names}"),
    ):
        if mine != its:
            raise BadData(f"the run to compare with has other {what}", hint=f"run it again with {how}")


def check_shared(reference: Reference, index: Any, labels: Any) -> None:
    """Raise `BadData` unless the other run attacked some of the images at `index`, and with the same `labels`."""
    shared = [
        (reference.label[i], label) for i, label in zip(index.tolist(), labels, strict=True) if i in reference.label
    ]
    if not shared:
        raise BadData("the run to compare with shares no images", hint="run both with the same --n and --shard")
    if any(its != mine for its, mine in shared):
        raise BadData("the run to compare with has other labels for the same images")


@dataclass(frozen=True)
class Both:
    """The images that both runs attacked, rising, and which of the two stood: int64 [M], bool [M], bool [M]."""

    index: Any
    this: Any
    that: Any

    def pairs(self) -> Pairs:
        """Return their counts."""
        this, that = self.this, self.that
        return Pairs(*(int(both.sum()) for both in (this & that, this & ~that, ~this & that, ~this & ~that)))

    def values(self, order: Any) -> Any:
        """Return the difference of each, from [-1, 1] brought to [0, 1], in the order of the places in `order`."""
        place = np.full(int(order.max()) + 1, -1)
        place[self.index] = np.arange(len(self.index))
        rows = place[order]
        rows = rows[rows >= 0]
        return (1 + self.this[rows].astype(float) - self.that[rows]) / 2


def match(evidence: Evidence, reference: Reference) -> Both:
    """Find the images that both runs attacked; `check_shared` knows that there are some."""
    rows = [row for row, image in enumerate(evidence.index.tolist()) if image in reference.robust]
    index = evidence.index[rows]
    return Both(index, evidence.robust[rows], np.asarray([reference.robust[image] for image in index.tolist()], bool))


def pair(evidence: Evidence, reference: Reference, order: Any = None) -> Paired:
    """Compare with another run; `order` are the places judged, in turn, where the run stopped early."""
    both, other = match(evidence, reference), reference.report.artifact
    against = f"{other.name} {other.precision} on {other.backend}/{other.provider}, {other.sha256[:12]}"
    if order is None:
        return paired(against, both.pairs())
    low, high = sequential.interval(both.values(order))
    return paired(against, both.pairs()).model_copy(update={"ci95": (2 * low - 1, 2 * high - 1), "mcnemar_p": None})


def paired(against: str, pairs: Pairs) -> Paired:
    """Return the comparison of a number of images that was fixed beforehand."""
    return Paired(
        against=against,
        **pairs._asdict(),
        difference=pairs.difference,
        ci95=paired_difference(pairs),
        mcnemar_p=mcnemar(pairs),
    )
