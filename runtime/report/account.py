"""All that is known of a finished run when it is written down for people: report.json, and what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import BadData, BadRun
from runtime.gallery.store import GALLERY, read_gallery
from runtime.records.bench import load_bench
from runtime.suite.evidence import WRONG_BEFORE
from runtime.verdict.paired import compare_finished, read_reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runtime.bundle.manifest import Manifest
    from runtime.gallery.store import Gallery
    from runtime.records.bench import Bench
    from runtime.records.report import Paired, Report
    from runtime.verdict.paired import Finished


@dataclass(frozen=True)
class OtherRun:
    """Another run beside this one; `paired` is this less that, None where their images cannot be paired: `why`."""

    report: Report
    paired: Paired | None
    why: str = ""


@dataclass(frozen=True)
class Account:
    """What a report is written from.

    Args:
        report: report.json.
        gallery: a few images, where the run kept some.
        others: runs beside it.
        bench: how fast it is, where `edgeproof bench` was told of the run's directory.
        manifest: of the bundle that was judged, where it is named.

    """

    report: Report
    gallery: Gallery | None = None
    others: tuple[OtherRun, ...] = ()
    bench: Bench | None = None
    manifest: Manifest | None = None


def read_account(directory: Path, others: Sequence[Path] = ()) -> Account:
    """Read a finished run, and those to be shown beside it.

    Raises:
        BadData: report or evidence is missing or damaged; or bench.json is damaged.
        BadRun: the gallery is, or it is of another run.

    """
    this = read_reference(directory)
    gallery = read_gallery(directory)
    if gallery is not None and not fits(gallery, this):
        raise BadRun(f"{directory / GALLERY} is of another run", hint="remove it: the report is whole without it")
    compared = tuple(beside(this, read_reference(other)) for other in others)
    return Account(this.report, gallery, compared, load_bench(directory))


def fits(gallery: Gallery, run: Finished) -> bool:
    """Return whether the images of a gallery are those of a run, and what it says of them can be."""
    classes, attacks = len(run.report.per_class), len(run.report.attacks)
    known = dict(zip(*(run.images[name].tolist() for name in ("index", "label")), strict=True))
    labels = zip(gallery.index.tolist(), gallery.label.tolist(), strict=True)
    return all(known.get(index) == label for index, label in labels) and all(
        low <= value < high
        for values, low, high in (
            (gallery.label, 0, classes),
            (gallery.clean_prediction, 0, classes),
            (gallery.adversarial_prediction, 0, classes),
            (gallery.broken_by, WRONG_BEFORE, attacks),
        )
        for value in values.tolist()
    )


def beside(this: Finished, that: Finished) -> OtherRun:
    """Compare two runs on the images that both attacked, if both were asked alike and ran to a fixed end."""
    try:
        matched = compare_finished(this, that)
    except BadData as error:
        return OtherRun(that.report, None, error.message)
    return OtherRun(that.report, matched.worst_case, matched.why)
