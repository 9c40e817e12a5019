"""A session that sees few sizes of a batch: a GPU makes what it runs anew for each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from runtime.batches.around import Around
from runtime.session import LossSpec, Session

LEAST = 16
"""Images in the smallest batch of several: on a GPU fewer take as long."""


def fixed_size(n: int) -> int:
    """Return the size that n images are asked in: the next power of two or three quarters of one, at least LEAST.

    A single image is asked by itself, as a device in use is: a graph may answer it otherwise than in any batch.
    """
    if n == 1:
        return 1
    power = 1 << (n - 1).bit_length()
    return max(3 * power // 4 if n <= 3 * power // 4 else power, LEAST)


class FixedSizes(Around):
    """A session whose batches are filled up to a `fixed_size` with copies of their rows.

    The answers to these are cut off: none is ever seen, and none of the others depends on them.

    Args:
        session: an image's answer does not depend on the others of its batch.
        most: images that it is asked at once; a batch is filled up no further.

    """

    def __init__(self, session: Session, most: int) -> None:
        super().__init__(session)
        self.most = most

    def logits(self, x: Any) -> Any:
        """Return the logits of the artifact: float32 [B, K]."""
        n = x.shape[0]
        return self.session.logits(filled(x, self._size(n)))[:n, ...]

    def loss_gradient(self, x: Any, loss: LossSpec) -> tuple[Any, Any, Any]:
        """Return (logits, value, gradient)."""
        n, size = x.shape[0], self._size(x.shape[0])
        filled_up = LossSpec(*(filled(getattr(loss, field.name), size) for field in fields(loss)))
        z, value, gradient = self.session.loss_gradient(filled(x, size), filled_up)
        return z[:n, ...], value[:n], gradient[:n, ...]

    def _size(self, n: int) -> int:
        return max(n, min(fixed_size(n), self.most)) if n else 0


def filled(rows: Any, size: int) -> Any:
    """Return rows [B, ...] as [size, ...], filled up with copies of them: so what is added is as finite as the rest."""
    if rows.shape[0] == size:
        return rows
    xp = array_namespace(rows)
    return xp.take(rows, xp.asarray(np.arange(size) % rows.shape[0], device=device(rows)), axis=0)
