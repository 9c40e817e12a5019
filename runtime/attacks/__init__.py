"""The attacks, written once over arrays of any framework, and the table that names them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.attacks.cw import cw
from runtime.attacks.fgsm import fgsm
from runtime.attacks.noise import Noise
from runtime.attacks.pgd import pgd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.attacks.oracle import Found, Oracle, Points


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: as `--attacks` takes it and the report prints it.
        search: looks for a point that breaks each image within eps.
        defaults: its keyword arguments; steps are fractions of eps.
        uses_gradient: whether it needs the gradient graph.

    """

    name: str
    search: Callable[..., Found]
    defaults: Mapping[str, int | float] = field(default_factory=dict)
    uses_gradient: bool = True

    def run(self, oracle: Oracle, points: Points, eps: float, seed: int) -> Found:
        """Attack a chunk of images that the artifact classifies correctly."""
        return self.search(oracle, points, eps, Noise(seed, self.name), **self.defaults)


PGD = Attack("pgd", pgd, {"steps": 10, "step": 1 / 4})

ATTACKS: dict[str, Attack] = {
    attack.name: attack for attack in (Attack("fgsm", fgsm), PGD, Attack("cw", cw, {"steps": 30, "step": 1 / 10}))
}
