"""The outcome of the suite on one artifact, or on a part of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from runtime.records.totals import add_control
from runtime.suite.scrutiny import doubtful

if TYPE_CHECKING:
    from runtime.records.measurements import Agreement, AttackRow, CurvePoint, Fusion, GradientTest, Probe, Searched
    from runtime.suite.evidence import Evidence


class Held(NamedTuple):
    """The results of testing the gradient, as fields of Outcome. They decide how much a pass must allow for."""

    gradient_test: GradientTest | None = None
    blind_control: Searched | None = None
    smoothed_control: Searched | None = None


@dataclass(frozen=True)
class Outcome:
    """The results of the suite. `evidence` has a row for each image judged."""

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
        """The outcome of a whole run: if the gradient is doubtful, smoothed gradients count in the blind control.

        A shard cannot decide this, because it depends on the whole run.
        """
        control, smoothed = self.blind_control, self.smoothed_control
        if control and smoothed and doubtful(self.gradient_test):
            control = add_control(control, smoothed)
        return replace(self, blind_control=control, smoothed_control=None)


COUNTS = (
    "agreement", "parent_agreement", "probe", "gradient_test", "blind_control", "smoothed_control", "square_alone",
    "fusion",
)  # fmt: skip
"""Fields of Outcome with counts, which add up over shards."""
