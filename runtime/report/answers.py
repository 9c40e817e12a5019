"""The first answers of a page: may it ship, how robust is it, under which attack does it fall, what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runtime.attacks import CASCADES, any_bounded
from runtime.report.phrases import attack_names, findings, gate_words, verdict_of
from runtime.spec import Gate
from runtime.words import interval, percent, points, radius, signed

if TYPE_CHECKING:
    from runtime.records.measurements import AttackRow
    from runtime.records.report import Paired, Report
    from runtime.report.account import Account


class Answer(NamedTuple):
    """A question, its answer in a few words, and details. `tone` is a verdict, which gives the colour."""

    question: str
    answer: str
    details: tuple[str, ...] = ()
    tone: str = "measured"


def answers(account: Account) -> tuple[Answer, ...]:
    """Return the answers in the order of the page."""
    report = account.report
    return shipping(report), robustness(report), weakest_point(report), change(account)


def doubts(report: Report) -> list[str]:
    """Return reasons why a passed gate is no clear yes: findings, another artifact or gate, or a gate of 0 %."""
    artifact = report.artifact
    doubted = [f"check {finding.check} found something" for finding in findings(report)]
    if not report.checks:
        doubted.append("the report records no checks")
    if artifact.backend == "torch":
        doubted.append("this run judged the PyTorch network, not the artifact that ships")
    if artifact.model and artifact.model.ships != artifact.precision:
        doubted.append(f"this run judged {artifact.precision}, and the bundle ships {artifact.model.ships}")
    if artifact.bundle_version is not None and artifact.model is None:
        doubted.append(f"this run judged {artifact.precision}, and an earlier version did not record what ships")
    if report.gate == Gate(fail_under=0):
        doubted.append("this gate asks nothing: every model passes 0 %")
    less = [f"this gate asks less than the bundle's own: {gate_words(own)}"] if (own := report.stricter_gate) else []
    return doubted + less


def may_ship(report: Report) -> bool:
    """Return whether the run passed a gate and has no `doubts`. Only then does a page say yes."""
    return verdict_of(report) == "passed" and not doubts(report)


def shipping(report: Report) -> Answer:
    """Answer whether the artifact may ship."""
    verdict, question = verdict_of(report), "May I ship it?"
    why = ("nothing was required, so nothing passed or failed",) if report.gate == Gate() else report.reasons
    found = [each.message for each in findings(report)]
    said = list(dict.fromkeys([*found, *(reason for reason in why if reason not in found)]))
    if may_ship(report):
        return Answer(question, "Yes: it passed its gate", tuple(said), "passed")
    if verdict == "passed":
        return Answer(question, "Not yet: it passed its gate, with doubts", (*doubts(report), *said), "inconclusive")
    short = {
        "failed": "No: it failed its gate",
        "inconclusive": "Not yet: this run does not decide",
        "measured": "Not decided: no gate was set",
    }
    return Answer(question, short[verdict], tuple(said), verdict)


def robustness(report: Report) -> Answer:
    """Answer how robust the artifact is."""
    question, clean, robust = "How robust is it?", report.clean, report.robust_accuracy
    images = f"{clean.n:,} images"
    if robust is None:
        return Answer(question, "Not measured", (f"clean accuracy {percent(clean.accuracy)} of {images}",))
    eps = radius(report.threat_model.eps)
    return Answer(
        question,
        percent(robust.value),
        (
            f"this share of {images} survives every attack within {eps} (95 % interval {interval(robust.ci95)})",
            f"{percent(clean.accuracy)} are right without an attack: attacks cost {points(gap(report))}",
        ),
    )


def gap(report: Report) -> float:
    """Return clean minus robust accuracy, as a fraction; 0 if no attack ran."""
    return report.clean.accuracy - report.robust_accuracy.value if report.robust_accuracy else 0.0


def weakest_point(report: Report) -> Answer:
    """Answer under which attack the artifact falls: the one that alone leaves the lowest accuracy."""
    question, ran = "Under which attack does it fall?", attacks_within(report)
    if not ran:
        return Answer(question, "No attack ran")
    least = min(row.accuracy for _, row in ran)
    worst, others = ([each for each in ran if (each[1].accuracy == least) is lowest] for lowest in (True, False))
    row = worst[0][1]
    if not row.attacked:
        return Answer(question, "Nothing to attack", ("the model was right on no image",))
    if not row.broken:
        return Answer(question, "Under none that ran", ("these ran: " + ", ".join(name for name, _ in ran),))
    each = "each leaves" if len(worst) > 1 else "leaves"
    details = [f"{each} {percent(least)}: it breaks {row.broken:,} of {row.attacked:,} images"]
    stages = [stage for stage in report.attacks if stage.cascade]
    if row.name in CASCADES and stages:
        most = max(stages, key=lambda stage: stage.broken)
        details.append(f"most of them, {most.broken:,}, by its stage {most.label}")
    if others:
        details.append("alone: " + ", ".join(f"{name} {percent(other.accuracy)}" for name, other in others))
    return Answer(question, ", ".join(name for name, _ in worst), tuple(details))


def attacks_within(report: Report) -> list[tuple[str, AttackRow]]:
    """Return the attacks in the ball with their names on a page, without the stages of cascades."""
    named = zip(attack_names(report), report.attacks, strict=True)
    return [(name, row) for name, row in named if not row.cascade and any_bounded([row.name])]


def change(account: Account) -> Answer:
    """Answer what changed since another run; if none is known, say how to name one."""
    question, paired = "What changed since the last run?", account.report.paired
    against = paired.against if paired else ""
    for other in account.others:
        if paired is None and other.paired:
            paired, against = other.paired, f"{other.report.artifact.name} {other.report.artifact.precision}"
    if paired:
        return Answer(question, f"{signed(paired.difference)} points", _changed(paired, against))
    if account.others:
        return Answer(question, "Not comparable", (account.others[0].why,))
    return Answer(question, "No other run is known", ("name one: verify --against DIR, or report DIR EARLIER",))


def _changed(paired: Paired, against: str) -> tuple[str, str]:
    low, high = paired.ci95
    shown = "more robust than" if low > 0 else "less robust than" if high < 0 else "no change was shown against"
    return (
        f"{shown} {against}",
        f"on {paired.n:,} images, 95 % interval {signed(low)} to {signed(high)}",
    )
