"""What the suite found on one artifact, or on one part of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from runtime.records.totals import add_control
from runtime.suite.scrutiny import doubtful

if TYPE_CHECKING:
    from runtime.records.report import Agreement, AttackRow, CurvePoint, Fusion, GradientTest, Probe, Searched
    from runtime.suite.evidence import Evidence


class Held(NamedTuple):
    """How the gradient was held to the artifact: fields of Outcome on which it hangs how much a pass allows for."""

    gradient_test: GradientTest | None = None
    blind_control: Searched | None = None
    smoothed_control: Searched | None = None


@dataclass(frozen=True)
class Outcome:
    """What the suite found; `evidence` has a row for each image judged."""

    evidence: Evidence
    attacks: tuple[AttackRow, ...]
    eps_curve: tuple[CurvePoint, ...] = ()
    far: CurvePoint | None = None
    agreement: Agreement | None = None
    parent_agreement: Agreement | None = None
    probe: Probe | None = None
    gradient_test: GradientTest | None = None
    blind_control: Searched | None = None
    smoothed_control: Searched | None = None
    square_alone: Searched | None = None
    fusion: Fusion | None = None

    @property
    def settled(self) -> Outcome:
        """What a whole run found: smoothed gradients count to its blind control where its gradient is doubtful.

        A shard does not know that of the whole.
        """
        control, smoothed = self.blind_control, self.smoothed_control
        if control and smoothed and doubtful(self.gradient_test):
            control = add_control(control, smoothed)
        return replace(self, blind_control=control, smoothed_control=None)


COUNTS = (
    "agreement", "parent_agreement", "probe", "gradient_test", "blind_control", "smoothed_control", "square_alone",
    "fusion",
)  # fmt: skip
"""Fields of Outcome that hold counts: those of parts add up."""
