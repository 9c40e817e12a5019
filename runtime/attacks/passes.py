"""What an attack or a check costs at most: image passes through the artifact and through a gradient graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

RARE = 2
"""Forwards that go with a gradient, at most, so that the gradients tell how far a search is."""
RECENT = 0.9
"""An image counts as still asked while it has had this share of the passes, but one, of the one that had most."""


@dataclass(frozen=True)
class Passes:
    """Image passes, of one image or of many.

    A gradient is one question to the gradient graph. Where cross-entropy is flat in float32 the oracle asks twice
    (`Oracle.loss_gradient`); a question there takes twice as long, and counts once.

    Args:
        forwards: images whose logits are asked of the artifact.
        gradients: images whose gradient is asked.

    """

    forwards: int = 0
    gradients: int = 0

    def __add__(self, other: Passes) -> Passes:
        """Return both together."""
        return Passes(self.forwards + other.forwards, self.gradients + other.gradients)

    def __mul__(self, times: int) -> Passes:
        """Return as many times as much."""
        return Passes(times * self.forwards, times * self.gradients)

    @property
    def by_gradient(self) -> bool:
        """Whether the gradients tell how far the work is; else the forwards do."""
        return RARE * self.gradients >= self.forwards

    @property
    def leading(self) -> int:
        """The passes that tell how far the work is."""
        return self.gradients if self.by_gradient else self.forwards


class Headway:
    """How far the work on a chunk of images is, by the passes that were made for them.

    An image that has fallen is asked no more: the work that it would have been is done with it.

    Args:
        images: in the chunk.
        most: what the work costs an image at most.
        tell: told what is done since it was last told, in images.

    """

    def __init__(self, images: int, most: Passes, tell: Callable[[float], None]) -> None:
        self._most, self._tell, self._told = most, tell, 0.0
        self._had = [0] * images

    def asked(self, rows: Any, *, gradient: bool) -> None:
        """Count a pass of the images at these rows of the chunk: int64 [B]."""
        if gradient is not self._most.by_gradient:
            return
        for row in rows.tolist():
            self._had[row] += 1
        done, least = sum(self._had), RECENT * max(self._had) - 1
        left = sum(max(self._most.leading - had, 0) for had in self._had if had >= least)
        self._reach(len(self._had) * done / (done + left))

    def end(self) -> None:
        """Tell that all is done."""
        self._reach(len(self._had))

    def _reach(self, images: float) -> None:
        if images > self._told:
            self._tell(images - self._told)
            self._told = images
