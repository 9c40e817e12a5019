"""gallery.npz: a few images of every outcome, with the worst point found for each, to be looked at.

Chosen by what is known of an image alone, so that a run that is stopped, cut into shards or asked again gives the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadRun
from runtime.images.npz import UNREADABLE, open_npz
from runtime.suite.evidence import WRONG_BEFORE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runtime.images.image_set import ImageSet
    from runtime.suite.evidence import Evidence

GALLERY = "gallery.npz"
MOST = 4
"""Images of one outcome."""
VALUES = 2**20
"""Values that the images of a gallery have together: of large ones it holds fewer, but one of each outcome."""
STEPS = 127
"""Steps of a perturbation from 0 to eps."""


@dataclass(frozen=True)
class Gallery:
    """One row an image, by outcome, then in the order of the set. For looking: the points themselves are rounded.

    Args:
        index: int64 [G], the index in the set.
        label: int64 [G].
        clean_prediction: int64 [G].
        adversarial_prediction: int64 [G], the artifact's class at the worst point.
        broken_by: int64 [G], as in the evidence.
        linf: float64 [G], distance of that point.
        image: uint8 [G, C, H, W].
        adversarial: uint8 [G, C, H, W], the worst point.
        perturbation: int8 [G, C, H, W], its difference from the image, in steps of eps / STEPS.

    """

    index: Any
    label: Any
    clean_prediction: Any
    adversarial_prediction: Any
    broken_by: Any
    linf: Any
    image: Any
    adversarial: Any
    perturbation: Any

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def arrays(self) -> dict[str, Any]:
        """Return the arrays of gallery.npz by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def rows(self, rows: Any) -> Gallery:
        """Return the rows that an integer array selects."""
        return Gallery(**{name: array[rows] for name, array in self.arrays().items()})


def gather(evidence: Evidence, images: ImageSet, eps: float, attacks: int) -> Gallery:
    """Choose from the images whose worst points are kept.

    Args:
        evidence: of the run.
        images: the set that its indices refer to.
        eps: radius of the perturbations.
        attacks: rows of the report, each an outcome.

    """
    rows = np.searchsorted(evidence.index, evidence.kept)
    most = _most(attacks, images.images.shape[1:])
    chosen = _choose(evidence.broken_by[rows], evidence.kept, most)
    rows, worst = rows[chosen], evidence.adversarial[chosen]
    clean = images.as_float(evidence.kept[chosen])
    return Gallery(
        **{name: getattr(evidence, name)[rows] for name in (*_NUMBERS, "linf")},
        image=_bytes(clean),
        adversarial=_bytes(worst),
        perturbation=np.rint(np.clip((worst - clean) / (eps or 1), -1, 1) * STEPS).astype(np.int8),
    )


def merged(parts: Sequence[Gallery], attacks: int) -> Gallery:
    """Return the gallery of the run that `parts` are shards of: each holds the first of its images."""
    every = Gallery(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Gallery)}
    )
    return every.rows(_choose(every.broken_by, every.index, _most(attacks, every.image.shape[1:])))


def read_gallery(directory: Path, hint: str = "remove it: the report is whole without it") -> Gallery | None:
    """Read gallery.npz; None where there is none, as in a run by an earlier version.

    Raises:
        BadRun: it is damaged.

    """
    path = directory / GALLERY
    if not path.is_file():
        return None
    try:
        with open_npz(path) as file:
            gallery = Gallery(**{field.name: file[field.name] for field in fields(Gallery)})
    except (*UNREADABLE, KeyError) as error:
        raise BadRun(f"{path} is damaged: {error}", hint=hint) from None
    if not _whole(gallery):
        raise BadRun(f"{path} is damaged: its arrays do not fit together", hint=hint)
    return gallery


_NUMBERS = ("index", "label", "clean_prediction", "adversarial_prediction", "broken_by")
_PIXELS = {"image": np.uint8, "adversarial": np.uint8, "perturbation": np.int8}


def _whole(gallery: Gallery) -> bool:
    shape = gallery.image.shape
    whole = len(shape) == 4 and 0 not in shape[1:]
    whole = whole and all(getattr(gallery, name).shape == shape[:1] for name in (*_NUMBERS, "linf"))
    whole = whole and all(getattr(gallery, name).dtype.kind in "iu" for name in _NUMBERS)
    for name, kind in _PIXELS.items():
        pixels = getattr(gallery, name)
        whole = whole and pixels.shape == shape and pixels.dtype == kind
    return whole


def _most(attacks: int, shape: tuple[int, ...]) -> int:
    """Return how many images of an outcome there may be; never of what was found, so that shards agree."""
    outcomes = attacks + 2
    return max(1, min(MOST, VALUES // (outcomes * int(np.prod(shape)))))


def _choose(broken_by: Any, index: Any, most: int) -> Any:
    """Return rows: the first `most` of each outcome by index in the set; what broke first, what was wrong last."""
    order = np.argsort(index, kind="stable")
    outcomes = sorted(set(broken_by.tolist()), key=lambda row: (row == WRONG_BEFORE, row < 0, row))
    chosen = [order[broken_by[order] == outcome][:most] for outcome in outcomes]
    return np.concatenate(chosen) if chosen else order


def _bytes(images: Any) -> Any:
    return np.rint(255 * images).astype(np.uint8)
