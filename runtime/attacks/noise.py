"""Noise that belongs to an image, not to a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.files import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Noise:
    """Draws by Philox, keyed by (seed, attack, restart, image index), whatever the batch or order."""

    seed: int
    attack: str

    def uniform(self, index: Sequence[int] | Any, shape: Sequence[int], restart: int = 0) -> Any:
        """Return float32 [B, *shape], uniform in [-1, 1): row i is drawn for image index[i] alone.

        Made from the raw 64-bit stream, which numpy keeps over versions (NEP 19).
        """
        raw = self.bits(index, int(np.prod(shape)), restart)
        return ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)).reshape(-1, *shape)

    def bits(self, index: Sequence[int] | Any, count: int, restart: int = 0) -> Any:
        """Return uint64 [B, count] of random bits: row i is drawn for image index[i] alone."""
        return np.stack([self._stream(int(image), restart).random_raw(count) for image in index])

    def _stream(self, image: int, restart: int) -> np.random.Philox:
        attack = int(sha256(self.attack.encode())[:16], 16)
        key, counter = ([self.seed, attack], [0, 0, restart, image])
        return np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))


def shuffled(seed: int, n: int) -> Any:
    """Return the indices of n images in a random order that the seed fixes: int64 [N].

    What takes the first of them samples a set that may be sorted by class.
    """
    return np.argsort(Noise(seed, "order").bits([0], n)[0], kind="stable")
