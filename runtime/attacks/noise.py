"""Random numbers that depend on the image, and not on its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.files import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Noise:
    """Random numbers from Philox, keyed by (seed, attack, restart, image index): batch and order do not matter."""

    seed: int
    attack: str

    def uniform(self, index: Sequence[int] | Any, shape: Sequence[int], restart: int = 0) -> Any:
        """Return float32 [B, *shape], uniform in [-1, 1); row i depends on image index[i] alone.

        It uses the raw 64-bit stream, which numpy keeps the same in all versions (NEP 19).
        """
        raw = self.bits(index, int(np.prod(shape)), restart)
        return ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)).reshape(-1, *shape)

    def bits(self, index: Sequence[int] | Any, count: int, restart: int = 0) -> Any:
        """Return random uint64 [B, count]; row i depends on image index[i] alone."""
        return np.stack([self._stream(int(image), restart).random_raw(count) for image in index])

    def _stream(self, image: int, restart: int) -> np.random.Philox:
        attack = int(sha256(self.attack.encode())[:16], 16)
        key, counter = ([self.seed, attack], [0, 0, restart, image])
        return np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))


def shuffled(seed: int, n: int) -> Any:
    """Return the indices of n images in a random order that the seed fixes: int64 [N].

    The first of them are a random sample, even of a set that is sorted by class.
    """
    return np.argsort(Noise(seed, "order").bits([0], n)[0], kind="stable")
