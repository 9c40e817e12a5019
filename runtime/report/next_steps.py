"""What to do next after a run, its weak classes, and what it does not show."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, NamedTuple

from runtime.report.answers import attacks_within, may_ship
from runtime.report.phrases import findings, verdict_of
from runtime.spec import PARENT
from runtime.statistics import Z95, wilson
from runtime.words import percent, points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.records.report import ClassRow, Report

MOST_STEPS = 3
FEWEST_OF_A_CLASS, WEAK_SHARE = 10, 0.5
"""A class with at least so many images is weak if it has less than this share of the clean accuracy of all classes."""
MOST_IMAGES = 1_000_000
"""More images than anybody judges."""
WIDE, SAME = 0.1, 0.01
"""An interval wider than WIDE is too coarse to choose a gate; accuracies within SAME do not rank attacks."""
SMALL_IMAGE = 64
"""The side in pixels below which images say little about larger pictures."""


class Step(NamedTuple):
    """Something to do. `type_` is what to type for it: a command, or options to add to the run's command."""

    text: str
    type_: str = ""


def next_steps(report: Report) -> list[Step]:
    """Return what to do next, the most urgent first."""
    steps = [Step(f"Resolve what {finding.check} found: {finding.hint}") for finding in findings(report)]
    steps += {
        "failed": _after_a_failure,
        "inconclusive": _after_no_decision,
        "measured": _after_a_measurement,
        "passed": _after_a_pass,
    }[verdict_of(report)](report)
    for row in weak_classes(report)[:1]:
        steps.append(Step(f"Look at class {row.name}: its images or labels, since it is wrong without any attack"))
    return steps[:MOST_STEPS]


def _after_a_failure(report: Report) -> Iterator[Step]:
    gate, robust, paired = report.gate, report.robust_accuracy, report.paired
    if gate.fail_under is not None and robust and robust.ci95[1] < gate.fail_under:
        missing = f"Robust accuracy is {points(gate.fail_under - robust.value)} below the gate"
        if report.clean.accuracy < gate.fail_under:
            yield Step(f"{missing}, and so is clean accuracy: train a more accurate model first")
        elif report.artifact.model and report.artifact.model.method:
            yield Step(
                f"{missing}: train for longer, or with a stronger teacher or method", "edgeproof study STUDY.toml"
            )
        else:
            yield Step(f"{missing}: train the model against attacks", "edgeproof distill RECIPE")
    if gate.max_drop is not None and paired and paired.ci95[1] < -gate.max_drop:
        beyond = points(-paired.difference - gate.max_drop)
        yield Step(
            f"The drop is {beyond} beyond the gate: keep the most sensitive layers in fp16, or ship fp16",
            "edgeproof export RUN --precision fp32,fp16,int8 --keep-fp16 auto",
        )


def _after_no_decision(report: Report) -> Iterator[Step]:
    gate, robust, n = report.gate, report.robust_accuracy, report.clean.n
    if any(finding.blocking for finding in findings(report)):
        return
    if gate.fail_under is not None and robust is None:
        yield Step("Attack it: a gate needs an attack within eps", "--attacks fgsm,pgd,cw")
        return
    if gate.fail_under is not None and robust:
        low, high = robust.ci95
        if low < gate.fail_under <= high:
            needed = images_to_decide(robust.value, gate.fail_under)
            if needed is None:
                yield Step(
                    "The figure lies on the gate: more images hardly decide it. Set another gate, or train further"
                )
            else:
                yield Step(
                    f"Judge more images: about {needed:,} decide it if the figure stays; these were {n:,}", "--n N"
                )
        elif low >= gate.fail_under:
            yield Step("Search every image without a gradient too, so that attacks miss less", "--attacks aa")
    if gate.max_drop is not None and report.paired is None:
        yield Step("Name the run that the drop is measured from", "--against DIR")
    elif gate.max_drop is not None:
        yield Step("Judge more images: the interval of the change is too wide for the gate", "--n N")


def images_to_decide(value: float, gate: float) -> int | None:
    """Return about how many images move the 95 % interval of `value` off the gate; None above MOST_IMAGES."""
    apart = abs(value - gate)
    needed = ceil(value * (1 - value) * (Z95 / apart) ** 2) if apart else None
    return needed if needed and needed <= MOST_IMAGES else None


def _after_a_measurement(report: Report) -> Iterator[Step]:
    robust = report.robust_accuracy
    if robust is None:
        yield Step("Attack it", "--attacks fgsm,pgd,cw")
        return
    low, high = robust.ci95
    if high - low > WIDE:
        yield Step(f"Judge more images: the 95 % interval is {points(high - low)} wide", "--n N")
    five = floor(20 * low) * 5
    example = f"--fail-under {five}%" if five else ""
    yield Step(f"Set the gate that your product needs: on these images none above {percent(low)} can pass", example)
    if not any(row.cascade for row in report.attacks):
        yield Step("Run AutoAttack before you quote the figure: it may find more", "--attacks aa")


def _after_a_pass(report: Report) -> Iterator[Step]:
    artifact = report.artifact
    if artifact.backend == "torch":
        yield Step("Export the network, and verify the bundle on the device", "edgeproof export RUN")
        return
    if artifact.model and artifact.model.ships != artifact.precision:
        yield Step("Verify the precision that ships", f"--precision {artifact.model.ships}")
    if report.stricter_gate:
        yield Step("Judge it by the bundle's own gate: leave out --fail-under and --max-drop")
    if not may_ship(report):
        return
    if not artifact.authenticated and " BUNDLE" in report.request.command:
        yield Step("Sign the bundle", "edgeproof sign BUNDLE --key private.pem")
    yield Step("Hand the verdict on with the bundle: sign it too", "--attest private.pem")
    yield Step("Compare the next release with this run", "--against DIR --max-drop 2%")


def weak_classes(report: Report) -> list[ClassRow]:
    """Return the classes with low clean accuracy, the worst first."""
    found = []
    for row in report.per_class:
        if row.clean is None or row.n < FEWEST_OF_A_CLASS or row.clean >= WEAK_SHARE * report.clean.accuracy:
            continue
        if wilson(round(row.clean * row.n), row.n)[1] < report.clean.accuracy:
            found.append((row.clean, row.label, row))
    return [row for _, _, row in sorted(found)]


def limits(report: Report) -> list[str]:
    """Return what the run does not show, as far as the report tells."""
    model, ran, said = report.artifact.model, attacks_within(report), []
    if model:
        _, height, width = model.image
        if min(height, width) < SMALL_IMAGE:
            said.append(f"The images are {height} x {width} pixels. The run says nothing about larger pictures.")
        if model.architecture and model.architecture == model.teacher_architecture:
            said.append(
                f"Teacher and student are the same network ({model.architecture}). "
                "The run does not show what a smaller student keeps."
            )
        others = [name for name in model.sizes if name != report.artifact.precision]
        if others:
            said.append(f"The run judged {report.artifact.precision}. The bundle also holds {', '.join(others)}.")
        elif [*model.sizes] == [PARENT]:
            said.append(f"The bundle holds {PARENT} alone. The run does not show what int8 costs.")
    accuracies = [row.accuracy for _, row in ran]
    if len(ran) > 1 and (spread := max(accuracies) - min(accuracies)) <= SAME:
        said.append(f"The attacks lie within {points(spread)} of each other. The run does not tell which is stronger.")
    if not any(row.cascade for row in report.attacks):
        said.append("AutoAttack did not run. It may break more images.")
    said.append("Every accuracy is an upper bound: it says what these attacks did not break, not what no attack can.")
    return said
