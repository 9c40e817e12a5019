"""The input and output of a check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from runtime.attacks import any_bounded

if TYPE_CHECKING:
    from runtime.records.measurements import AttackRow
    from runtime.records.report import Artifact
    from runtime.records.request import GradientSource
    from runtime.suite.outcome import Outcome


class Facts(NamedTuple):
    """What the checks examine.

    `gated`: the run has a gate. `accepts_blind_evidence`: the user accepts a pass by searches without gradients alone.
    """

    outcome: Outcome
    classes: int
    artifact: Artifact
    gated: bool = False
    accepts_blind_evidence: bool = False

    @property
    def called(self) -> str:
        """Return the artifact's precision, and its staircases if it has any."""
        kinds = ", ".join(self.artifact.facts.staircases)
        return f"{self.artifact.precision} with staircases ({kinds})" if kinds else self.artifact.precision

    @property
    def n(self) -> int:
        """The number of images judged."""
        return len(self.outcome.evidence)

    @property
    def gradient_from(self) -> list[GradientSource]:
        """Return the sources of the gradients that attacks in the ball followed."""
        return list(dict.fromkeys(row.gradient for row in self.white_box))

    @property
    def within(self) -> list[AttackRow]:
        """Return the rows of the attacks that stay in the ball; no other attack counts."""
        return [row for row in self.outcome.attacks if any_bounded([row.name])]

    @property
    def white_box(self) -> list[AttackRow]:
        """Return the rows of the attacks in the ball that used gradients."""
        return [row for row in self.within if row.gradient != "none"]


class Seen(NamedTuple):
    """The outcome of a check. `message` is one sentence without its full stop.

    `blocking` and `hint` override those in CHECKS.
    """

    state: Literal["quiet", "found", "not run"]
    message: str
    blocking: bool | None = None
    hint: str | None = None


def seen(found: bool, message: str, *, blocking: bool | None = None, hint: str | None = None) -> Seen:
    """Return the outcome of a check that ran."""
    return Seen("found" if found else "quiet", message, blocking, hint)


def not_run(needs: str) -> Seen:
    """Return the outcome of a check that did not run, with what it needs."""
    return Seen("not run", f"not run: it needs {needs}")
