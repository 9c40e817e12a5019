"""The attacks, written once over arrays of any framework, and the table that names them.

A row names the module that holds its search, which is imported when it first runs: a list of names needs no NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from runtime.attacks.autoattack import standard
from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runtime.attacks.oracle import Found, Oracle, Points
    from runtime.attacks.passes import Passes


UNIT, SMALL_UNIT = 256, 64
"""Images in one unit of work; the small one, for attacks of hundreds of passes, is a default batch."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: as `--attacks` takes it and the report prints it.
        searched_by: MODULE:FUNCTION of this package, which looks for a point that breaks each image within eps. Beside
            it lies FUNCTION_passes: what the search costs an image at most, of the same `defaults`.
        defaults: its keyword arguments; steps are fractions of eps.
        uses_gradient: whether it needs the gradient graph.
        least_classes: how many the model must know for its loss to exist.
        bounded: whether it keeps to the ball. What one that does not finds is its own row and no more: it says
            nothing about the threat model, and never enters the worst case or the evidence.
        unit: images that are attacked before progress moves and what is done is safe; fewer where one takes long.

    """

    name: str
    searched_by: str
    defaults: Mapping[str, int | float] = field(default_factory=dict)
    uses_gradient: bool = True
    least_classes: int = 2
    bounded: bool = True
    unit: int = UNIT

    def fitted(self, classes: int) -> Attack:
        """Return the attack for a model of so many classes: it tries no more targets than there are.

        Raises:
            BadModel: its loss needs more classes.

        """
        if classes < self.least_classes:
            raise BadModel(
                f"{self.name} needs {self.least_classes} classes, and the model has {classes}",
                hint="--attacks aa runs the attacks that fit the model",
            )
        most = {"targets": min(self.defaults["targets"], classes - 1)} if "targets" in self.defaults else {}
        return replace(self, defaults={**self.defaults, **most})

    @property
    def passes(self) -> Passes:
        """What it costs an image at most; less of one that falls early."""
        passes: Passes = self._named("_passes")(**self.defaults)
        return passes

    def run(self, oracle: Oracle, points: Points, eps: float, seed: int) -> Found:
        """Attack a chunk of images that the artifact classifies correctly."""
        from runtime.attacks.noise import Noise

        return self.search(oracle, points, eps, Noise(seed, self.name), **self.defaults)

    @property
    def search(self) -> Callable[..., Found]:
        """The function that is named."""
        return self._named("")

    def _named(self, suffix: str) -> Callable[..., Any]:
        module, _, function = self.searched_by.partition(":")
        found: Callable[..., Any] = getattr(import_module(f"{__name__}.{module}"), function + suffix)
        return found


PGD = Attack("pgd", "pgd:pgd", {"steps": 10, "step": 1 / 4})
APGD = {"steps": 100, "rho": 0.75}

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("fgsm", "fgsm:fgsm"),
        PGD,
        Attack("pgd-20", "pgd:pgd", {"steps": 20, "step": 1 / 4}),
        Attack("cw", "cw:cw", {"steps": 30, "step": 1 / 10}),
        Attack(
            "cw-l2",
            "cw_l2:cw_l2",
            {"constant": 0.1, "confidence": 0.01, "lr": 0.01, "steps": 1000},
            bounded=False,
            unit=SMALL_UNIT,
        ),
        Attack("apgd-ce", "apgd:apgd_ce", APGD),
        Attack("apgd-dlr", "apgd:apgd_dlr", APGD, least_classes=3),
        Attack("apgd-t", "apgd:apgd_t", {"targets": 9, **APGD}, least_classes=4, unit=SMALL_UNIT),
        Attack(
            "fab-t",
            "fab:fab_t",
            {"targets": 9, "steps": 100, "bias": 0.1, "overshoot": 1.05, "backward": 0.9},
            unit=SMALL_UNIT,
        ),
        Attack("square", "square:square", {"queries": 5000, "p": 0.8}, uses_gradient=False, unit=SMALL_UNIT),
    )
}
CASCADES: dict[str, Callable[[int], tuple[str, ...]]] = {"aa": standard}
"""Attacks run one after another, each on what the earlier ones left: from the number of classes to keys of ATTACKS."""
NAMES = (*ATTACKS, *CASCADES)
DEFAULT = ("fgsm", "pgd", "cw")


CONTROLS = (
    Attack("sign-hunter", "sign_hunter:sign_hunter", {"queries": 112}, uses_gradient=False),
    Attack("rays", "rays:rays", {"queries": 96, "halvings": 4}, uses_gradient=False),
    replace(ATTACKS["square"], defaults={**ATTACKS["square"].defaults, "queries": 16}, unit=UNIT),
)
"""Short searches without gradients, each on what the earlier left: the blind control. Not for `--attacks`."""
SMOOTHED = tuple(
    Attack(f"smoothed-{number}", "smoothed:smoothed", {"steps": 10, "step": 1 / 4, "radius": radius, "draws": 6})
    for number, radius in enumerate((1 / 2, 4.0), 1)
)
"""What the blind control tries besides where a gradient is doubtful."""
AGAIN = tuple(replace(ATTACKS[name], name=f"{name}-again") for name in ("pgd", "cw"))
"""Attacks with gradients from another start: what they break too, no search without gradients found alone."""


def any_bounded(names: Iterable[str]) -> bool:
    """Whether some of NAMES keep to the ball, so that there is a worst case to speak of."""
    return any(name in CASCADES or ATTACKS[name].bounded for name in names)


def stages(name: str, classes: int) -> tuple[Attack, ...]:
    """Return what one of NAMES runs on a model of so many classes.

    Raises:
        BadModel: the attack needs more classes.

    """
    names = CASCADES[name](classes) if name in CASCADES else (name,)
    return tuple(ATTACKS[stage].fitted(classes) for stage in names)
