"""Makes the report: the figures from the evidence, the verdict, and the circumstances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.attacks import any_bounded
from runtime.checks.claim import WEAK_EVIDENCE, check_claim
from runtime.checks.clean import check_clean
from runtime.checks.copies import check_copies
from runtime.checks.power import what_hides
from runtime.checks.table import check
from runtime.records.report import Accuracy, ClassRow, Clean, Finding, Report, Sequential
from runtime.spec import DataRecord, Gate
from runtime.statistics import NOTHING, decide, wilson
from runtime.suite.outcome import COUNTS
from runtime.suite.plan import BLIND
from runtime.verdict import sequential

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runtime.records.measurements import GradientTest, Searched
    from runtime.records.report import Circumstances, Paired
    from runtime.records.request import Request
    from runtime.statistics import Decision, Hidden
    from runtime.suite.evidence import Evidence
    from runtime.suite.outcome import Outcome


def build_report(
    circumstances: Circumstances, request: Request, outcome: Outcome, paired: Paired | None, order: Any = None
) -> Report:
    """Return the report: the figures, the verdict and the circumstances.

    Args:
        circumstances: what was attacked, where and when.
        request: of the run.
        outcome: of the suite.
        paired: the comparison with another run, if there is one.
        order: the indices of the images in the order in which they were judged, for a run with --until-decided; else
            None.

    """
    evidence, artifact, n = outcome.evidence, circumstances.artifact, len(outcome.evidence)
    correct = int(evidence.correct.sum())
    within = any_bounded(attack.name for attack in request.attacks)
    robust = estimate_accuracy(evidence, evidence.robust, order) if within else None
    checks = (
        *check(
            outcome,
            classes=len(circumstances.classes),
            artifact=artifact,
            gated=request.gate != Gate(),
            accepts_blind_evidence=request.accept_blind_evidence,
        ),
        check_clean(request, evidence.label, evidence.correct),
        check_copies(request, evidence.pixels),
        *check_claim(request),
    )
    found = tuple(
        Finding(check=each.check, blocking=each.blocking, message=each.message, hint=each.hint)
        for each in checks
        if each.state == "found"
    )
    hidden = hidden_in(robust, evidence.fell, outcome.blind_control, outcome.gradient_test)
    decision = decide_verdict(request, robust, paired, found, hidden=hidden)
    return Report(
        verdict=decision.verdict,
        reasons=tuple(decision.reasons),
        gate=request.gate,
        artifact=artifact,
        data=DataRecord(name=request.data.name, n=n, sha256=request.data.sha256),
        threat_model=request.threat_model,
        request=request,
        request_sha256=request.digest(),
        seed=request.seed,
        clean=Clean(n=n, correct=correct, accuracy=correct / n, ci95=wilson(correct, n)),
        attacks=outcome.attacks,
        robust_accuracy=robust,
        lattice=estimate_accuracy(evidence, evidence.lattice, order) if request.lattice and within else None,
        sequential=None
        if order is None
        else stopping_record(decide_verdict(request, robust, paired, hidden=hidden), decision, n, request.n),
        per_class=per_class(evidence, circumstances.classes),
        confusion=confusion(evidence, len(circumstances.classes)),
        eps_curve=outcome.eps_curve,
        paired=paired,
        **{name: getattr(outcome, name) for name in COUNTS if name in Report.model_fields},
        warnings=found,
        checks=checks,
        device=circumstances.device,
        software=circumstances.software,
        started=circumstances.started,
        seconds=circumstances.seconds,
    )


def decide_verdict(
    request: Request,
    robust: Accuracy | None,
    paired: Paired | None,
    found: Sequence[Finding] = (),
    *,
    hidden: Hidden = NOTHING,
) -> Decision:
    """Return the decision of the request's gate on the figures, limited by the findings of checks; see `decide`."""
    blocking = [finding for finding in found if finding.blocking]
    return decide(
        request.gate,
        robust.ci95 if robust else None,
        paired.ci95 if paired else None,
        [finding.message for finding in blocking if finding.check not in WEAK_EVIDENCE],
        unproven=[finding.message for finding in blocking if finding.check in WEAK_EVIDENCE],
        hidden=hidden,
        interval="95 % confidence sequence" if request.until_decided else "95 % interval",
    )


def hidden_in(
    robust: Accuracy | None, attacks: Iterable[str], control: Searched | None, test: GradientTest | None
) -> Hidden:
    """Return how much the attacks with these labels (`AttackRow.label`) may have missed; see `what_hides`."""
    return what_hides(robust.value, control, test, by_square=BLIND in attacks) if robust else NOTHING


def estimate_accuracy(evidence: Evidence, flags: Any, order: Any = None) -> Accuracy:
    """Return the fraction of images whose flag (bool [N]) is set; with `order`, the interval is valid at any stop."""
    n, count = len(flags), int(flags.sum())
    if order is None:
        return Accuracy(value=count / n, ci95=wilson(count, n))
    in_turn = flags[np.searchsorted(evidence.index, order)]
    return Accuracy(value=count / n, ci95=sequential.interval(in_turn.astype(float)))


def stopping_record(by_interval: Decision, decision: Decision, judged: int, of: int) -> Sequential:
    """Return the record of a run with early stopping: how many images it judged, and why it stopped.

    Args:
        by_interval: the decision by the intervals alone, at which the run stops.
        decision: the decision of the run, which a check may block.
        judged: the number of images judged.
        of: the number of all images.

    """
    decided = by_interval.verdict != "inconclusive"
    if decided:
        blocked = decision.verdict == "inconclusive"
        why = "the interval alone decides the gate; a check blocks it" if blocked else "the gate is decided"
        reason = f"stopped after {judged} of {of} images: {why}"
    else:
        reason = f"all {of} images were judged and did not decide the gate: run it without --until-decided"
    return Sequential(alpha=sequential.ALPHA, judged=judged, of=of, decided=decided, reason=reason)


def per_class(evidence: Evidence, classes: tuple[str, ...]) -> tuple[ClassRow, ...]:
    """Return clean and robust accuracy on the images of each class."""
    rows = []
    for label, name in enumerate(classes):
        own = evidence.label == label
        n = int(own.sum())
        clean, robust = (float(flag[own].mean()) if n else None for flag in (evidence.correct, evidence.robust))
        rows.append(ClassRow(label=label, name=name, n=n, clean=clean, robust=robust))
    return tuple(rows)


def confusion(evidence: Evidence, classes: int) -> tuple[tuple[int, ...], ...]:
    """Return counts of images by label (row) and by the artifact's class at the worst point (column)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (evidence.label, evidence.adversarial_prediction), 1)
    return tuple(tuple(row) for row in counts.tolist())
