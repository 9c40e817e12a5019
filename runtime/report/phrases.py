"""The words of a report, the same on a terminal, on the page and in a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runtime.attacks import any_bounded
from runtime.spec import PARENT, Gate
from runtime.suite.evidence import STANDS, WRONG_BEFORE
from runtime.words import percent, points

if TYPE_CHECKING:
    from runtime.records.report import Finding, Report
    from runtime.statistics import Verdict

BEYOND, STAGE = "(no eps)", ": "
"""The mark of an attack without eps, which the worst case leaves out; and what joins a cascade and its stage."""
CLEAN, WORST, BYTES = "clean", "worst case", "on uint8"
"""The names of rows of accuracy that do not belong to one attack."""


class AccuracyRow(NamedTuple):
    """An accuracy and its 95 % interval, as fractions of all images."""

    name: str
    accuracy: float
    ends: tuple[float, float]


def verdict_of(report: Report) -> Verdict:
    """Return the verdict. Reports of version 0.1 say `passed` for a run without a gate, which is `measured`."""
    return "measured" if report.verdict == "passed" and report.gate == Gate() else report.verdict


def reasons(report: Report) -> tuple[str, ...]:
    """Return the reasons for the verdict; without a gate, also the figure."""
    if verdict_of(report) != "measured":
        return report.reasons
    robust = report.robust_accuracy
    figure = f"robust accuracy {percent(robust.value)}" if robust else "no attack within eps ran"
    return (*report.reasons, figure)


def findings(report: Report) -> list[Finding]:
    """Return the findings, blocking ones first, also those that a report has only in `checks`."""
    named = {finding.check for finding in report.warnings}
    also = [check for check in report.checks if check.state == "found" and check.check not in named]
    return sorted((*report.warnings, *also), key=lambda finding: not finding.blocking)


def attack_names(report: Report) -> list[str]:
    """Return the name of each row of `attacks`; a stage of a cascade has the cascade's name before its own."""
    names: list[str] = []
    cascade = ""
    for row in reversed(report.attacks):
        cascade = cascade if row.cascade else row.name  # a cascade's own row comes after its stages
        names.insert(0, f"{cascade}{STAGE}{row.label}" if row.cascade else row.label)
    return names


def accuracy_rows(report: Report) -> list[AccuracyRow]:
    """Return the accuracies: clean, under every attack, the worst case and, if requested, the worst case on uint8."""
    rows = [AccuracyRow(CLEAN, report.clean.accuracy, report.clean.ci95)]
    for attack, called in zip(report.attacks, attack_names(report), strict=True):
        name = called if any_bounded([attack.name]) else f"{called} {BEYOND}"
        rows.append(AccuracyRow(name, attack.accuracy, attack.ci95))
    for name, found in ((WORST, report.robust_accuracy), (BYTES, report.lattice)):
        if found:
            rows.append(AccuracyRow(name, found.value, found.ci95))
    return rows


def checks_line(report: Report) -> str:
    """Return how many checks found nothing and which did not run, in words."""
    quiet = sum(check.state == "quiet" for check in report.checks)
    absent = ", ".join(check.check for check in report.checks if check.state == "not run")
    return f"{quiet} check{'' if quiet == 1 else 's'} found nothing" + (f"; not run: {absent}" if absent else "")


def union_line(report: Report) -> str | None:
    """Return in words whether attacks followed a surrogate or the parent's gradient; None if they did not."""
    led, artifact = {row.gradient for row in report.attacks}, report.artifact
    said = []
    if artifact.facts.staircases and led - {"none"}:
        kinds = ", ".join(artifact.facts.staircases)
        said.append(f"the gradient is a surrogate: it passes straight through {kinds}, and may mislead")
    if "parent" in led:
        said.append(f"rows marked (parent) follow the gradient of the {PARENT} graph it was made from")
        said.append(f"{artifact.precision} judged every point")
    return "; ".join(said) or None


def gate_words(gate: Gate) -> str:
    """Return a gate in words."""
    asked = []
    if gate.fail_under is not None:
        asked.append(f"robust accuracy of at least {percent(gate.fail_under)}")
    if gate.max_drop is not None:
        asked.append(f"a drop of at most {points(gate.max_drop)}")
    return " and ".join(asked) or "none"


def outcome_words(report: Report, broken_by: int) -> str:
    """Return the outcome of an image, `Evidence.broken_by`, in words."""
    if broken_by == WRONG_BEFORE:
        return "wrong before any attack"
    return "survived every attack" if broken_by == STANDS else f"broken by {report.attacks[broken_by].label}"
