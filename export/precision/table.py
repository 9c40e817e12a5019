"""The precisions a model ships in: how each is made of the fp32 graph, and how near it must come to the original."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from export.limits import Limits
from export.precision.calibrate import IMAGES, METHODS, Calibration, in_int8
from export.precision.half import in_float16
from export.precision.mixed import keep
from export.precision.sensitivity import chosen
from runtime.bundle.manifest import Calibrated
from runtime.errors import BadModel, UsageFault
from runtime.spec import DataRecord
from runtime.terminal.log import log
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from export.precision.candidate import Candidate


@dataclass(frozen=True)
class NumberFormat:
    """One precision.

    Args:
        make: the model in it, of the model in fp32 and, where `calibrated`, of calibration images; and what set its
            ranges.
        limits: of its distance from the original.
        calibrated: whether it needs images.

    """

    make: Callable[[Candidate, Calibration | None], tuple[Candidate, Calibrated | None]]
    limits: Limits
    calibrated: bool = False


def _fp32(single: Candidate, calibration: Calibration | None) -> tuple[Candidate, None]:
    return single, None


def _fp16(single: Candidate, calibration: Calibration | None) -> tuple[Candidate, None]:
    return replace(single, forward=in_float16(single.forward)), None


def _int8(single: Candidate, calibration: Calibration | None) -> tuple[Candidate, Calibrated]:
    if calibration is None:
        raise UsageFault(
            "int8 needs calibration images that are not in the evaluation set", hint="give them with --calibration SET"
        )
    images = calibration.images
    log.info(f"int8: ranges by {calibration.method} on {len(images)} images of {images.name}")
    candidate, names = replace(single, forward=in_int8(single.forward, calibration)), calibration.keep
    if names is None:
        names, candidate = chosen(candidate, single, calibration.held or images, calibration.eps)
    elif names:
        candidate = replace(single, forward=keep(candidate.forward, single.forward, names))
    if not any(node.op_type == "QuantizeLinear" for node in candidate.forward.model.graph.node):
        raise BadModel(
            "int8 quantises nothing: every layer stays in fp16, because int8 costs too much"
            if calibration.keep is None
            else "int8 quantises nothing: every layer is to stay in fp16",
            hint="leave int8 out, ship fp16, or name the layers to keep in fp16",
        )
    data = DataRecord(name=images.name, n=len(images), sha256=images.sha256)
    return candidate, Calibrated(data=data, method=calibration.method, kept_fp16=names)


PRECISIONS: dict[str, NumberFormat] = {
    "fp32": NumberFormat(_fp32, Limits(logit=1e-3, agreement=0.995, gradient=1e-3)),
    "fp16": NumberFormat(_fp16, Limits(logit=1e-2, agreement=0.99, gradient=0.2)),
    "int8": NumberFormat(
        _int8,
        Limits(logit=0.3, agreement=0.9, gradient=1.0),
        calibrated=True,
    ),
}
"""By name. In which one a graph computes is written in the graph: an engine is given no flag (docs/precision.md)."""

SHIPPING = ("fp16", "int8", "fp32")
"""What ships of several where nobody says: the first of these (docs/adr/0027)."""


def precisions(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of precisions, in order and once each.

    Raises:
        UsageFault: PRECISIONS has no such name.

    """
    asked = tuple(dict.fromkeys(name.strip() for name in names))
    for name in asked:
        if name not in PRECISIONS:
            raise UsageFault(
                f"{name!r} is not a precision{did_you_mean(name, PRECISIONS)}", hint=f"known: {', '.join(PRECISIONS)}"
            )
    return asked


@dataclass(frozen=True)
class Choice:
    """The choice of precisions for a bundle.

    Args:
        names: keys of PRECISIONS; empty: the model's own.
        ships: the one that goes to the device; None: `shipping`.
        method: of calibration, a key of METHODS.
        images: largest number of calibration images.
        keep: layers of int8 that stay in fp16, by name; None: chosen by what int8 costs.

    """

    names: tuple[str, ...] = ()
    ships: str | None = None
    method: str = next(iter(METHODS))
    images: int = IMAGES
    keep: tuple[str, ...] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether calibration images are needed."""
        return any(PRECISIONS[name].calibrated for name in self.names)


def shipping(names: Collection[str]) -> str:
    """Return the precision that ships of several."""
    return next(name for name in SHIPPING if name in names)
