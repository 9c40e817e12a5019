"""The pictures of a gallery, embedded in the page as PNG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.gallery.store import STEPS
from runtime.report.phrases import outcome_words
from runtime.suite.evidence import WRONG_BEFORE

if TYPE_CHECKING:
    from runtime.gallery.store import Gallery
    from runtime.records.report import Report
    from runtime.report.account import Account

HEAT = "00234f 053273 33426c 48526c 5f626e 727375 878479 9e9676 b5a86f cdbc64 e7d051 ffe732"
"""Cividis (Nunez, Anderton and Renslow 2018) in even steps. People with colour blindness see the same order."""


@dataclass(frozen=True)
class Tile:
    """One image of the gallery.

    Args:
        index: its index in the set.
        label: its class.
        before: the artifact's class of the image.
        after: the artifact's class of the worst point; None if the image was misclassified before any attack.
        linf: the worst point's distance, in levels of a byte.
        image: a data URL, as the next three.
        adversarial: the worst point.
        amplified: the perturbation around a middle grey; eps is black or white.
        heat: the absolute perturbation.

    """

    index: int
    label: str
    before: str
    after: str | None
    linf: float
    image: str
    adversarial: str
    amplified: str
    heat: str


def tiles(account: Account) -> list[tuple[str, list[Tile]]]:
    """Return the images of each outcome, with the outcome in words; nothing without a gallery."""
    gallery, report = account.gallery, account.report
    if gallery is None:
        return []
    groups = groupby(range(len(gallery)), key=lambda row: int(gallery.broken_by[row]))
    return [(outcome_words(report, outcome), [_tile(gallery, row, report) for row in rows]) for outcome, rows in groups]


def _tile(gallery: Gallery, row: int, report: Report) -> Tile:
    names = [each.name for each in report.per_class]
    moved = gallery.perturbation[row].astype(np.float64) / STEPS
    return Tile(
        index=int(gallery.index[row]),
        label=names[gallery.label[row]],
        before=names[gallery.clean_prediction[row]],
        after=None if gallery.broken_by[row] == WRONG_BEFORE else names[gallery.adversarial_prediction[row]],
        linf=255 * float(gallery.linf[row]),
        image=data_url(gallery.image[row]),
        adversarial=data_url(gallery.adversarial[row]),
        amplified=data_url(np.rint(127.5 + 127.5 * moved).astype(np.uint8)),
        heat=data_url(_heat(np.abs(moved).max(axis=0))),
    )


def data_url(pixels: Any) -> str:
    """Return an image uint8 [C, H, W] as a data URL of a PNG: in colour if C is 3, else its channels' mean in grey."""
    from PIL import Image

    grey = pixels.shape[0] != 3
    shown = np.rint(pixels.mean(axis=0)).astype(np.uint8) if grey else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    Image.fromarray(shown).save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _heat(values: Any) -> Any:
    """Return values [H, W] in [0, 1] as colours: uint8 [3, H, W]."""
    colours = np.array([tuple(bytes.fromhex(colour)) for colour in HEAT.split()])
    steps = np.linspace(0, 1, len(colours))
    return np.rint([np.interp(values, steps, channel) for channel in colours.T]).astype(np.uint8)
