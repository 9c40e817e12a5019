"""A session that is asked in few batch sizes, because a GPU prepares anew for each size."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from runtime.batches.around import Around
from runtime.session import LossSpec, Session

LEAST = 16
"""The smallest batch of more than one image. On a GPU, fewer images take as long."""


def fixed_size(n: int) -> int:
    """Return the batch size for n images: the next power of two or three quarters of one, but at least LEAST.

    A single image is asked alone, as on a device in use: in a batch, a graph may answer it differently.
    """
    if n == 1:
        return 1
    power = 1 << (n - 1).bit_length()
    return max(3 * power // 4 if n <= 3 * power // 4 else power, LEAST)


class FixedSizes(Around):
    """A session whose batches are padded to a `fixed_size` with copies of their rows.

    The answers to the copies are dropped, and no other answer depends on them.

    Args:
        session: its answer to an image must not depend on the other images of the batch.
        most: the most images in a padded batch.

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
    """Return rows [B, ...] padded to [size, ...] with copies of themselves, which are as finite as the rows."""
    if rows.shape[0] == size:
        return rows
    xp = array_namespace(rows)
    return xp.take(rows, xp.asarray(np.arange(size) % rows.shape[0], device=device(rows)), axis=0)
