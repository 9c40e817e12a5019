"""gallery.npz: a few images of every outcome, each with its worst point, for people to look at.

The choice depends only on each image's own outcome. So a resumed run, a sharded run and a repeated run choose the same.
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
"""The most images of one outcome."""
VALUES = 2**20
"""The most values of all images together. So there are fewer large images, but at least one of each outcome."""
STEPS = 127
"""The steps of a stored perturbation from 0 to eps."""
REMOVE = "remove it: the report is complete without it"
"""What to do about a gallery that cannot be shown."""


@dataclass(frozen=True)
class Gallery:
    """Images for people to look at, one row per image, by outcome and then by index. Pixels are rounded to bytes.

    Args:
        index: int64 [G], the index in the set.
        label: int64 [G].
        clean_prediction: int64 [G].
        adversarial_prediction: int64 [G], the artifact's class at the worst point.
        broken_by: int64 [G], as in the evidence.
        linf: float64 [G], the L-infinity distance of the worst point from the image.
        image: uint8 [G, C, H, W].
        adversarial: uint8 [G, C, H, W], the worst point.
        perturbation: int8 [G, C, H, W], the worst point minus the image, in steps of eps / STEPS.

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
    """Return a gallery, chosen from the images whose worst points the evidence keeps.

    Args:
        evidence: of the run.
        images: the evaluation set.
        eps: the radius of the threat model.
        attacks: the number of attacks in the report; each is an outcome.

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
    """Return the gallery of a run from those of its shards, each of which has the first images of its part."""
    every = Gallery(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Gallery)}
    )
    return every.rows(_choose(every.broken_by, every.index, _most(attacks, every.image.shape[1:])))


def read_gallery(directory: Path, hint: str = REMOVE) -> Gallery | None:
    """Read gallery.npz; return None if there is none, as in runs of earlier versions.

    Raises:
        BadRun: the file is damaged; the error has `hint`.

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
    """Return the most images of one outcome. It does not depend on the outcomes, so that all shards agree."""
    outcomes = attacks + 2
    return max(1, min(MOST, VALUES // (outcomes * int(np.prod(shape)))))


def _choose(broken_by: Any, index: Any, most: int) -> Any:
    """Return the rows of the first `most` images of each outcome: broken first, then robust, then misclassified."""
    order = np.argsort(index, kind="stable")
    outcomes = sorted(set(broken_by.tolist()), key=lambda row: (row == WRONG_BEFORE, row < 0, row))
    chosen = [order[broken_by[order] == outcome][:most] for outcome in outcomes]
    return np.concatenate(chosen) if chosen else order


def _bytes(images: Any) -> Any:
    return np.rint(255 * images).astype(np.uint8)
