"""The evidence on every image, from which the report is counted; evidence.npz has a part of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.images.image_set import ImageSet
    from runtime.records.request import GradientSource

STANDS = -1
WRONG_BEFORE = -2
UNSEEN = -3
"""Values of Evidence.broken_by besides rows of the report's attacks. UNSEEN occurs only during a run."""

UNKNOWN = -1
"""The value of Evidence.pixels for shards of earlier versions, which did not record it."""

KEPT = ("index", "label", "clean_prediction", "broken_by", "adversarial_prediction", "linf", "margin")
"""The arrays of evidence.npz besides `adversarial`."""
PER_IMAGE = (*KEPT, "lattice", "pixels", "spared")
BY_NAME = ("fell", "blind")
"""Dictionaries of flags; a shard stores them as arrays with names such as `fell.pgd`."""


@dataclass
class Evidence:
    """The evidence, one row per image in the order of the set.

    Attributes:
        index: int64 [N], the index in the set.
        label: int64 [N].
        clean_prediction: int64 [N].
        broken_by: int64 [N], the row of the attack that first broke the image, or STANDS, WRONG_BEFORE or UNSEEN (not
            classified yet).
        adversarial_prediction: int64 [N], the artifact's class at the worst point, which is the point that first broke
            the image, or else the one with the largest margin.
        linf: float64 [N], the L-infinity distance of the worst point from the clean image.
        margin: float32 [N], max_{j != y} z_j - z_y at the worst point.
        lattice: bool [N], whether all points found so far are classified correctly after rounding to the uint8 lattice.
        pixels: int64 [N], the digest of the image's pixels, which its copies share.
        spared: bool [N], whether a search found a point that the judge classifies correctly and a witness with the same
            graph does not (`Oracle.spared`).
        kept: int64 [M], the indices of the images whose worst point is kept, rising.
        adversarial: float32 [M, C, H, W], those points.
        fell: by attack (`AttackRow.label`), bool [N], the images that it broke, also if others broke them before.
        blind: by gradient source, bool [N], the images whose gradient was zero at first (`Oracle.zero_gradient`).

    """

    index: Any
    label: Any
    clean_prediction: Any
    broken_by: Any
    adversarial_prediction: Any
    linf: Any
    margin: Any
    lattice: Any
    pixels: Any
    spared: Any
    kept: Any
    adversarial: Any
    fell: dict[str, Any] = field(default_factory=dict)
    blind: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def blank(cls, images: ImageSet, kept: Any) -> Evidence:
        """Return the evidence on a set before any image was classified; `kept` is int64 [M], rising."""
        n = len(images)
        nowhere = np.full(n, -1)
        return cls(
            index=np.arange(n),
            label=images.labels,
            clean_prediction=nowhere,
            broken_by=np.full(n, UNSEEN),
            adversarial_prediction=nowhere.copy(),
            linf=np.zeros(n),
            margin=np.zeros(n, np.float32),
            lattice=np.zeros(n, bool),
            pixels=images.pixels,
            spared=np.zeros(n, bool),
            kept=kept,
            adversarial=images.as_float(kept),
        )

    @property
    def correct(self) -> Any:
        """Whether each image was classified correctly before any attack: bool [N]."""
        return self.broken_by >= STANDS

    @property
    def robust(self) -> Any:
        """Whether each image was classified correctly at every point judged: bool [N]."""
        return self.broken_by == STANDS

    @property
    def zero_gradient(self) -> Any:
        """Whether every gradient that attacks followed was zero at first: bool [N]."""
        return np.all(list(self.blind.values()), axis=0) if self.blind else np.zeros(len(self), bool)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def arrays(self, *, adversarial: bool) -> dict[str, Any]:
        """Return the arrays of evidence.npz by name, with the worst points if `adversarial`."""
        names = (*KEPT, "adversarial") if adversarial else KEPT
        return {name: getattr(self, name) for name in names}

    def everything(self) -> dict[str, Any]:
        """Return all arrays by name, for `restored`."""
        arrays = {name: getattr(self, name) for name in (*PER_IMAGE, "kept", "adversarial")}
        flags = {f"{what}.{name}": array for what in BY_NAME for name, array in getattr(self, what).items()}
        return arrays | flags

    @classmethod
    def restored(cls, arrays: Mapping[str, Any]) -> Evidence:
        """Return the evidence from the arrays of `everything`.

        Raises:
            KeyError: an array is missing.

        """
        flags: dict[str, Any] = {what: {} for what in BY_NAME}
        for name, array in arrays.items():
            what, dot, key = name.partition(".")
            if dot and what in flags:
                flags[what][key] = array
        unknown = {"pixels": np.full_like(arrays["index"], UNKNOWN), "spared": np.ones(len(arrays["index"]), bool)}
        arrays = unknown | dict(arrays)
        return cls(**{name: arrays[name] for name in (*PER_IMAGE, "kept", "adversarial")}, **flags)

    @classmethod
    def merged(cls, parts: Sequence[Evidence]) -> Evidence:
        """Return the evidence of all parts together, in the order of the set. No image may be in two parts."""
        row = np.argsort(np.concatenate([part.index for part in parts]))
        kept_row = np.argsort(np.concatenate([part.kept for part in parts]))
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])[order]
            for names, order in ((PER_IMAGE, row), (("kept", "adversarial"), kept_row))
            for name in names
        }
        for what in BY_NAME:
            flags = [getattr(part, what) for part in parts]
            arrays[what] = {name: np.concatenate([each[name] for each in flags])[row] for name in flags[0]}
        return cls(**arrays)

    def classify(self, index: Any, prediction: Any, margin: Any) -> None:
        """Store the artifact's classes and margins for the clean images at `index`."""
        right = prediction == self.label[index]
        self.clean_prediction[index] = self.adversarial_prediction[index] = prediction
        self.margin[index], self.lattice[index] = margin, right
        self.broken_by[index] = np.where(right, STANDS, WRONG_BEFORE)

    def worse(self, index: Any, broken: Any, margin: Any) -> Any:
        """Return for which images an attack found a worse point than all before: bool [B]."""
        return self.robust[index] & (broken | (margin > self.margin[index]))

    def keeps(self, index: Any) -> Any:
        """Return for which images the worst point is kept: bool [B]."""
        return np.isin(index, self.kept)

    def began(self, label: str, gradient_from: GradientSource) -> None:
        """Note that an attack runs. If there is no image left for it, it broke none."""
        self.fell.setdefault(label, np.zeros(len(self), bool))
        if gradient_from != "none":
            self.blind.setdefault(gradient_from, np.zeros(len(self), bool))

    def update(self, row: int, label: str, gradient_from: GradientSource, index: Any, found: Mapping[str, Any]) -> None:
        """Store what the attack of `row` found on the images at `index`, the arrays of `units.search`."""
        broken, worse, standing = found["broken"], self.worse(index, found["broken"], found["margin"]), self.robust
        images = index[worse]
        for what in ("adversarial_prediction", "linf", "margin"):
            getattr(self, what)[images] = found[what][worse]
        self.adversarial[np.searchsorted(self.kept, images[self.keeps(images)])] = found["adversarial"]
        if gradient_from != "none":
            self.blind[gradient_from][index] |= found["zero_gradient"]
        if "lattice" in found:
            self.lattice[index] &= found["lattice"]
        self.spare(index, found)
        self.fell[label][index] |= broken
        self.broken_by[index[standing[index] & broken]] = row

    def spare(self, index: Any, found: Mapping[str, Any]) -> None:
        """Note the images at `index` that a search spared and did not break.

        A unit of an earlier version, which had no witness, counts as having spared every image.
        """
        self.spared[index] |= found.get("spared", np.ones(len(index), bool)) & ~found["broken"]

    def rows(self, index: Any) -> Evidence:
        """Return the evidence on the images at `index`, which rises, with the points kept for them."""
        kept = np.isin(self.kept, index)
        return Evidence(
            **{name: getattr(self, name)[index] for name in PER_IMAGE},
            kept=self.kept[kept],
            adversarial=self.adversarial[kept],
            **{what: {name: flags[index] for name, flags in getattr(self, what).items()} for what in BY_NAME},
        )
