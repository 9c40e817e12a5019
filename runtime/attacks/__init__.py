"""The attacks, written once over arrays of any framework, and the table that names them.

A row names the module of its search, which is imported when it first runs. So listing the names needs no NumPy.
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
"""Images in one unit of work. The small unit is for attacks of hundreds of passes; it equals the default batch."""


@dataclass(frozen=True)
class Attack:
    """An attack and its settings.

    Args:
        name: the name in `--attacks` and in the report.
        searched_by: MODULE:FUNCTION of this package. The function searches within eps of each image for a point that
            breaks it. FUNCTION_passes, beside it, returns the most passes per image for the same `defaults`.
        defaults: keyword arguments of the function; step sizes are fractions of eps.
        uses_gradient: whether it needs the gradient graph.
        least_classes: the fewest classes for which its loss is defined.
        bounded: whether it stays in the ball. An attack that does not says nothing about the threat model, so it
            gets its own row in the report, and never enters the worst case or the evidence.
        unit: images attacked before the result is saved and progress moves; fewer if an image takes long.

    """

    name: str
    searched_by: str
    defaults: Mapping[str, int | float] = field(default_factory=dict)
    uses_gradient: bool = True
    least_classes: int = 2
    bounded: bool = True
    unit: int = UNIT

    def fitted(self, classes: int) -> Attack:
        """Return the attack for a model of `classes` classes, with no more targets than wrong classes.

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
        """The most passes per image. An image that breaks early takes fewer."""
        passes: Passes = self._named("_passes")(**self.defaults)
        return passes

    def run(self, oracle: Oracle, points: Points, eps: float, seed: int) -> Found:
        """Attack a chunk of images, all of which the artifact classifies correctly."""
        from runtime.attacks.noise import Noise

        return self.search(oracle, points, eps, Noise(seed, self.name), **self.defaults)

    @property
    def search(self) -> Callable[..., Found]:
        """The search function, imported."""
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
"""Cascades: functions from the number of classes to keys of ATTACKS. Each attack runs on what the earlier ones left."""
NAMES = (*ATTACKS, *CASCADES)
DEFAULT = ("fgsm", "pgd", "cw")


CONTROLS = (
    Attack("sign-hunter", "sign_hunter:sign_hunter", {"queries": 112}, uses_gradient=False),
    Attack("rays", "rays:rays", {"queries": 96, "halvings": 4}, uses_gradient=False),
    replace(ATTACKS["square"], defaults={**ATTACKS["square"].defaults, "queries": 16}, unit=UNIT),
)
"""The blind control: short searches without gradients, each on what the earlier ones left. Not for `--attacks`."""
SMOOTHED = tuple(
    Attack(f"smoothed-{number}", "smoothed:smoothed", {"steps": 10, "step": 1 / 4, "radius": radius, "draws": 6})
    for number, radius in enumerate((1 / 2, 4.0), 1)
)
"""Attacks that the blind control adds if a gradient is doubtful."""
AGAIN = tuple(replace(ATTACKS[name], name=f"{name}-again") for name in ("pgd", "cw"))
"""Gradient attacks from another start. An image that they break too was not found by the blind control alone."""


def any_bounded(names: Iterable[str]) -> bool:
    """Return whether any of these names is an attack in the ball, so that the run has a worst case."""
    return any(name in CASCADES or ATTACKS[name].bounded for name in names)


def stages(name: str, classes: int) -> tuple[Attack, ...]:
    """Return the attacks that one of NAMES runs on a model of `classes` classes.

    Raises:
        BadModel: the attack needs more classes.

    """
    names = CASCADES[name](classes) if name in CASCADES else (name,)
    return tuple(ATTACKS[stage].fitted(classes) for stage in names)
