"""What the cells say: accuracies, what rounding leaves of them, and the rule that was set before any was run."""

from typing import Any

import numpy as np

from benchmarks.retention.artifacts import FORMATS
from benchmarks.retention.cells import ROUTES, Cells, standing, union
from runtime.records.request import GradientSource
from runtime.spec import Digest, Frozen, Text
from runtime.statistics import Interval, wilson

FREE = 0.95
"""The rule: a format is free where its union keeps this share of fp32's in every student."""
MISJUDGES = 0.05
"""The rule: a route under which this much more survives than under the union misjudges the artifact."""
RESAMPLES, SEED = 10_000, 0
ROUNDING = 1e-9
"""Of a difference of two fractions in float64."""


class Share(Frozen):
    """A fraction of the images, with its 95 % interval (Wilson)."""

    accuracy: float
    ci95: Interval


class Row(Frozen):
    """One artifact.

    Args:
        student: its name.
        form: a format's name.
        sha256: of its graph.
        eps: radius.
        n: images.
        clean: before any attack.
        routes: what survives each route alone.
        union: what survives all.
        ratio: its union over fp32's; None where fp32 leaves nothing.
        ratio_ci95: paired bootstrap over the images.

    """

    student: Text
    form: Text
    sha256: Digest
    eps: float
    n: int
    clean: Share
    routes: dict[GradientSource, Share]
    union: Share
    ratio: float | None
    ratio_ci95: Interval | None

    @property
    def gaps(self) -> dict[GradientSource, float]:
        """What survives each route beyond the union."""
        return {route: share.accuracy - self.union.accuracy for route, share in self.routes.items()}


def rows(student: str, cells: Cells) -> list[Row]:
    """Return a row for each format of one student, fp32 first."""
    whole = union(cells, FORMATS[0].name)
    found = []
    for form in (form.name for form in FORMATS if form.name in cells):
        own, left = cells[form]["own"], union(cells, form)
        ratio, ends = retained(left, whole)
        found.append(
            Row(
                student=student,
                form=form,
                sha256=own.sha256,
                eps=own.eps,
                n=own.n,
                clean=_share(standing(own, "clean")),
                routes={route: _share(standing(cells[form][route])) for route in ROUTES},
                union=_share(left),
                ratio=ratio,
                ratio_ci95=ends,
            )
        )
    return found


def retained(left: Any, whole: Any) -> tuple[float | None, Interval | None]:
    """Return the ratio of two fractions of the same images, and its 95 % interval by a paired bootstrap.

    Args:
        left: bool [N], what survives in one format.
        whole: bool [N], what survives in fp32.

    Returns:
        (None, None) where nothing of `whole` survives.

    """
    if not whole.any():
        return None, None
    kinds = np.bincount(2 * left + whole, minlength=4)
    drawn = np.random.Generator(np.random.Philox(SEED)).multinomial(len(left), kinds / len(left), RESAMPLES)
    below = drawn[:, 1] + drawn[:, 3]
    ratios = ((drawn[:, 2] + drawn[:, 3]) / np.maximum(below, 1))[below > 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(left.sum() / whole.sum()), (float(low), float(high))


def ruled(found: list[Row]) -> list[str]:
    """Return what the rule says of all rows, a sentence each."""
    sentences = []
    for form in dict.fromkeys(row.form for row in found if row.form != FORMATS[0].name):
        own = [row for row in found if row.form == form and row.ratio is not None]
        if not own:
            sentences.append(f"{form}: fp32 leaves nothing to compare it with.")
            continue
        least = min(own, key=lambda row: row.ratio or 0.0)
        assert least.ratio is not None
        free = "is free" if least.ratio >= FREE else "is not free"
        sentences.append(f"{form} {free}: the least union ratio is {least.ratio:.3f} ({least.student}).")
    misjudged: dict[tuple[str, str], dict[str, float]] = {}
    for row in found:
        for route, gap in row.gaps.items():
            if gap > MISJUDGES + ROUNDING:
                misjudged.setdefault((route, row.student), {})[row.form] = 100 * gap
    for (route, student), gaps in misjudged.items():
        more = f"{min(gaps.values()):.1f}" + (f" to {max(gaps.values()):.1f}" if len(gaps) > 1 else "")
        sentences.append(
            f"Gradient {route} alone misjudges {', '.join(gaps)} of {student}: robust accuracy under it is {more} "
            "points above the union's."
        )
    return sentences


def _share(flags: Any) -> Share:
    return Share(accuracy=float(flags.mean()), ci95=wilson(int(flags.sum()), len(flags)))
