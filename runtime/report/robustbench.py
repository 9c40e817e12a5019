"""robustbench.json: the AutoAttack result in RobustBench's format (github.com/RobustBench/robustbench, model_info/).

It is written only if the whole of standard AutoAttack ran on the images and with the norm and eps of a leaderboard.
Fields that edgeproof cannot know (authors, paper, venue) are left empty for the submitter.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from runtime.attacks import stages
from runtime.attacks.autoattack import standard
from runtime.bundle.described import network_of
from runtime.errors import BadInput
from runtime.report.cyclonedx import check_same
from runtime.verdict.subject import attack_request
from runtime.words import exact_radius

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.records.measurements import AttackRow
    from runtime.records.report import Report
    from runtime.report.account import Account

AUTOATTACK = "aa"


class Leaderboard(NamedTuple):
    """The conditions of a leaderboard's L-infinity table."""

    eps: float
    n: int
    classes: int


LEADERBOARDS = {
    "cifar10": Leaderboard(8 / 255, 10_000, 10),
    "cifar100": Leaderboard(8 / 255, 10_000, 100),
    "imagenet": Leaderboard(4 / 255, 5_000, 1_000),
}


def render(account: Account) -> str:
    """Return the document.

    Raises:
        BadInput: the leaderboard could not accept the run, as the message says; or the named bundle is another one.

    """
    report, manifest = account.report, account.manifest
    check_same(report, manifest)
    fault = next(_faults(report), None)
    if fault:
        raise BadInput(
            f"this run cannot be a row of RobustBench: {fault}",
            hint="verify BUNDLE --attacks aa on the whole test set, at the leaderboard's eps",
        )
    row, artifact, origin = _row(report), report.artifact, manifest.provenance if manifest else None
    assert row is not None
    accuracy = f"{100 * row.accuracy:.2f}"
    entry = {
        "link": "",
        "name": artifact.name,
        "authors": "",
        "additional_data": origin.extra_data is not None if origin else None,
        "number_forward_passes": 1,
        "dataset": _dataset(report),
        "venue": "",
        "architecture": network_of(origin) or "",
        "eps": exact_radius(report.threat_model.eps),
        "clean_acc": f"{100 * report.clean.accuracy:.2f}",
        "reported": accuracy,
        "autoattack_acc": accuracy,
        "footnote": (
            f"An ONNX graph in {artifact.precision} on {artifact.backend}/{artifact.provider}, "
            f"judged by edgeproof {report.software.get('edgeproof', '')}; graph sha256 {artifact.sha256}."
        ),
        "unreliable": bool(report.warnings),
    }
    return json.dumps(entry, indent=2, ensure_ascii=False) + "\n"


def _dataset(report: Report) -> str:
    return report.data.name.partition("/")[0]


def _row(report: Report) -> AttackRow | None:
    return next((row for row in report.attacks if row.name == AUTOATTACK and row.gradient == "own"), None)


def _faults(report: Report) -> Iterator[str]:
    """Yield the reasons why a leaderboard could not accept the run."""
    board = LEADERBOARDS.get(_dataset(report))
    if board is None:
        yield f"RobustBench has no leaderboard for {report.data.name}, only for {', '.join(LEADERBOARDS)}"
        return
    if report.threat_model.norm != "linf" or report.threat_model.eps != board.eps:
        yield f"its eps is {exact_radius(report.threat_model.eps)}, but the leaderboard's is {exact_radius(board.eps)}"
    if report.sequential or report.data.n != board.n or len(report.per_class) != board.classes:
        yield (
            f"it judged {report.data.n} images of {len(report.per_class)} classes, "
            f"and the leaderboard's whole set has {board.n} of {board.classes}"
        )
    row = _row(report)
    if row is None:
        yield "AutoAttack did not run by the artifact's own gradient"
    elif row.attacked != report.clean.correct:
        yield f"AutoAttack ran on {row.attacked} of {report.clean.correct} images that were classified correctly"
    yield from _suite(report)
    if report.artifact.facts.stepped:
        yield "the graph answers in steps, and its gradient is a surrogate"
    for each in report.warnings:
        if each.blocking:
            yield f"a check found that the figure is not to be believed: {each.check}"


def _suite(report: Report) -> Iterator[str]:
    """Yield how the run differs from standard AutoAttack."""
    classes = len(report.per_class)
    ran = [row.name for row in report.attacks if row.cascade and row.gradient in ("own", "none")]
    if report.request.all_attacks.get(AUTOATTACK) != attack_request(AUTOATTACK, stages(AUTOATTACK, classes)).settings:
        yield "AutoAttack ran with other settings than the standard ones"
    if ran != list(standard(classes)):
        yield f"of the standard suite ran {', '.join(ran) or 'nothing'}"
