"""annotations.txt: the verdict and the findings as commands of GitHub's runner, which shows them in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.report.phrases import reasons, verdict_of
from runtime.words import percent

if TYPE_CHECKING:
    from runtime.report.account import Account

LEVELS = {"passed": "notice", "measured": "notice", "failed": "error", "inconclusive": "error"}
DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
PROPERTY = {**DATA, **str.maketrans({":": "%3A", ",": "%2C"})}
"""The escapes of the runner's special characters (actions/toolkit, packages/core/src/command.ts)."""


def render(account: Account) -> str:
    """Return the commands, one per line."""
    report, artifact = account.report, account.report.artifact
    verdict, said = verdict_of(report), reasons(report)
    title = f"edgeproof: {verdict}, {artifact.name} {artifact.precision}"
    figure = f"; worst case {percent(report.robust_accuracy.value)}" if report.robust_accuracy else ""
    lines = [_command(LEVELS[verdict], title, "; ".join(said) + figure)]
    for each in report.warnings:
        level = "error" if each.blocking else "warning"
        lines.append(_command(level, f"edgeproof: {each.check}", f"{each.message} ({each.hint})"))
    return "".join(f"{line}\n" for line in lines)


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={title.translate(PROPERTY)}::{message.translate(DATA)}"
