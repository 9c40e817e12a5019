"""summary.md, the verdict for a pull request; and the same as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.checks.claim import effect
from runtime.markdown import escape, fenced, table
from runtime.report.next_steps import next_steps, weak_classes
from runtime.report.phrases import accuracy_rows, checks_line, findings, reasons, union_line, verdict_of
from runtime.words import interval, percent, points, radius

if TYPE_CHECKING:
    from runtime.records.report import Paired, Report
    from runtime.report.account import Account

SIGNS = {"passed": "✅", "measured": "⚪", "failed": "❌", "inconclusive": "⚠️"}


def render(account: Account) -> str:
    """Return the summary in GitHub's Markdown, with every text from outside escaped."""
    report, artifact = account.report, account.report.artifact
    verdict = verdict_of(report)
    heading = f"{SIGNS[verdict]} {verdict.capitalize()}"
    parts = [
        f"### {heading}: {escape(artifact.name)}, {escape(artifact.precision)}",
        "\n".join(f"- {escape(reason)}" for reason in reasons(report)),
        f"{report.data.n} images of {escape(report.data.name)}; perturbations of at most "
        f"{radius(report.threat_model.eps)} in L-infinity, on {escape(artifact.engines)}.",
        table(
            ("attack", "accuracy", "95 % interval"),
            [(escape(row.name), percent(row.accuracy), interval(row.ends)) for row in accuracy_rows(report)],
            left=1,
        ),
        *([f"{escape(union)}."] if (union := union_line(report)) else []),
        *([_compared(account)] if report.paired or account.others else []),
        *_warnings(report),
        *_weak(report),
        *([f"{checks_line(report)}."] if report.checks else []),
        *_next(report),
        f"<details><summary>How to repeat it</summary>\n\n{fenced(report.request.command)}\n\n"
        f"Artifact `{artifact.sha256}`, request `{report.request_sha256}`, seed {report.seed}.\n\n</details>",
    ]
    return "\n\n".join(parts) + "\n"


def plain(account: Account) -> str:
    """Return the summary as plain text."""
    report = account.report
    rows = accuracy_rows(report)
    width = max(len(row.name) for row in rows)
    return "\n".join(
        [
            verdict_of(report),
            *(f"  {reason}" for reason in reasons(report)),
            *(f"{row.name:{width}}  {percent(row.accuracy):>7}  {interval(row.ends)}" for row in rows),
            *([union] if (union := union_line(report)) else []),
            *([checks_line(report)] if report.checks else []),
            report.request.command,
        ]
    )


def _weak(report: Report) -> list[str]:
    return [
        f"> Class {escape(row.name)}: {percent(row.clean or 0)} clean, {percent(row.robust or 0)} robust "
        f"({row.n} images)."
        for row in weak_classes(report)
    ]


def _next(report: Report) -> list[str]:
    """Return what to do next, unless a finding already says it."""
    steps = [] if findings(report) else next_steps(report)
    lines = (f"1. {escape(step.text)}{f': `{step.type_}`' if step.type_ else ''}" for step in steps)
    return ["\n".join(["What to do next:", "", *lines])] if steps else []


def _compared(account: Account) -> str:
    report = account.report
    heading = ("compared with", "robust accuracy there", "change", "95 % interval")
    paired = report.paired
    rows = [(escape(paired.against), _robust_there(paired), *_change(paired))] if paired else []
    for other in account.others:
        its, robust = other.report.artifact, other.report.robust_accuracy
        name = f"{its.name} {its.precision} on {its.engines}"
        change = _change(other.paired) if other.paired else ("not paired", escape(other.why))
        rows.append((escape(name), percent(robust.value) if robust else "none", *change))
    return table(heading, rows, left=1)


def _robust_there(paired: Paired) -> str:
    return percent((paired.both + paired.only_that) / paired.n)


def _change(paired: Paired) -> tuple[str, str]:
    return f"{points(paired.difference)} on {paired.n} images", f"{points(paired.ci95[0])} to {points(paired.ci95[1])}"


def _warnings(report: Report) -> list[str]:
    return [
        f"> **{effect(each).capitalize()}: {escape(each.check)}.** {escape(each.message)}. *{escape(each.hint)}.*"
        for each in findings(report)
    ]
