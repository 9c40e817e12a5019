"""The cost of an attack or a check, in passes of images through the artifact and the gradient graph; and progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

RARE = 2
"""Progress counts gradients if a search makes at most this many forwards per gradient, and else forwards."""
RECENT = 0.9
"""An image counts as still under attack if it had at least RECENT times the most passes of any image, minus one."""


@dataclass(frozen=True)
class Passes:
    """Passes of one image or of many.

    A gradient is one call of `Oracle.loss_gradient`. It counts once even if cross-entropy is flat and the oracle asks
    the gradient graph twice.

    Args:
        forwards: images whose logits are asked of the artifact.
        gradients: images whose gradient is asked.

    """

    forwards: int = 0
    gradients: int = 0

    def __add__(self, other: Passes) -> Passes:
        """Return the sum of both."""
        return Passes(self.forwards + other.forwards, self.gradients + other.gradients)

    def __mul__(self, times: int) -> Passes:
        """Return `times` as many passes."""
        return Passes(times * self.forwards, times * self.gradients)

    @property
    def by_gradient(self) -> bool:
        """Whether progress is counted in gradients, and not in forwards."""
        return RARE * self.gradients >= self.forwards

    @property
    def leading(self) -> int:
        """The number of passes in which progress is counted."""
        return self.gradients if self.by_gradient else self.forwards


class Headway:
    """Progress of the work on a chunk of images, counted in passes.

    A broken image needs no further passes, so its work counts as done.

    Args:
        images: the number of images in the chunk.
        most: the most passes per image.
        tell: called with the progress since the last call, in images.

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
        """Report that all images are done."""
        self._reach(len(self._had))

    def _reach(self, images: float) -> None:
        if images > self._told:
            self._tell(images - self._told)
            self._told = images
