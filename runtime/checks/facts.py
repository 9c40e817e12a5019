"""What the checks look at, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from runtime.attacks import any_bounded

if TYPE_CHECKING:
    from runtime.records.report import Artifact, AttackRow
    from runtime.records.request import GradientSource
    from runtime.suite.outcome import Outcome


class Facts(NamedTuple):
    """What the checks look at.

    `gated`: a verdict hangs on it; `accepts_blind_evidence`: whoever asked lets it hang on searches without gradients.
    """

    outcome: Outcome
    classes: int
    artifact: Artifact
    gated: bool = False
    accepts_blind_evidence: bool = False

    @property
    def called(self) -> str:
        """Return the artifact's precision, and the staircases that it holds."""
        kinds = ", ".join(self.artifact.facts.staircases)
        return f"{self.artifact.precision} with staircases ({kinds})" if kinds else self.artifact.precision

    @property
    def n(self) -> int:
        """Images judged."""
        return len(self.outcome.evidence)

    @property
    def gradient_from(self) -> list[GradientSource]:
        """Return whose gradients attacks within the ball followed."""
        return list(dict.fromkeys(row.gradient for row in self.white_box))

    @property
    def within(self) -> list[AttackRow]:
        """Return the rows of the attacks that keep to the ball: no other says anything of the figure."""
        return [row for row in self.outcome.attacks if any_bounded([row.name])]

    @property
    def white_box(self) -> list[AttackRow]:
        """Return those of them that used gradients."""
        return [row for row in self.within if row.gradient != "none"]


class Seen(NamedTuple):
    """How a check went, and what it saw; a message is one sentence without its full stop.

    `blocking` and `hint`: in place of what the check's table says.
    """

    state: Literal["quiet", "found", "not run"]
    message: str
    blocking: bool | None = None
    hint: str | None = None


def seen(found: bool, message: str, *, blocking: bool | None = None, hint: str | None = None) -> Seen:
    """Return what a check that ran saw."""
    return Seen("found" if found else "quiet", message, blocking, hint)


def not_run(needs: str) -> Seen:
    """Return that a check did not run, and what it needs."""
    return Seen("not run", f"not run: it needs {needs}")
