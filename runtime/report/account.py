"""The account of a finished run, from which its reports are written: report.json and the files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import BadData, BadRun
from runtime.gallery.store import GALLERY, REMOVE, read_gallery
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
    """Another run to compare with. `paired` is this run minus that; None if images cannot be paired, as `why` says."""

    report: Report
    paired: Paired | None
    why: str = ""


@dataclass(frozen=True)
class Account:
    """Everything from which a report is written.

    Args:
        report: the content of report.json.
        gallery: a few images; None if the run kept none.
        others: other runs to compare with.
        bench: the content of bench.json, if it is in the run's directory.
        manifest: of the bundle that was judged, if it is named.

    """

    report: Report
    gallery: Gallery | None = None
    others: tuple[OtherRun, ...] = ()
    bench: Bench | None = None
    manifest: Manifest | None = None


def read_account(directory: Path, others: Sequence[Path] = ()) -> Account:
    """Read a finished run, and other runs to compare with.

    Raises:
        BadData: report or evidence is missing or damaged; or bench.json is damaged.
        BadRun: the gallery is damaged, or of another run.

    """
    this = read_reference(directory)
    gallery = read_gallery(directory)
    if gallery is not None and not fits(gallery, this):
        raise BadRun(f"{directory / GALLERY} belongs to another run", hint=REMOVE)
    compared = tuple(beside(this, read_reference(other)) for other in others)
    return Account(this.report, gallery, compared, load_bench(directory))


def fits(gallery: Gallery, run: Finished) -> bool:
    """Return whether the images of a gallery are those of a run, with valid classes and attacks."""
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
    """Compare two runs on the images that both attacked, if their requests allow it."""
    try:
        matched = compare_finished(this, that)
    except BadData as error:
        return OtherRun(that.report, None, error.message)
    return OtherRun(that.report, matched.worst_case, matched.why)
