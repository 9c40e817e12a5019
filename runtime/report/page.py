"""report.html: one self-contained page, without scripts. Every text is escaped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.checks.claim import effect
from runtime.machine.card import NOT_FOUND
from runtime.report import phrases
from runtime.report.answers import answers, shipping
from runtime.report.model_facts import model_facts
from runtime.report.next_steps import limits, next_steps, weak_classes
from runtime.report.tiles import tiles
from runtime.statistics import wilson
from runtime.words import duration, interval, percent, radius, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jinja2
    import markupsafe

    from runtime.records.measurements import Agreement, CurvePoint
    from runtime.records.report import ClassRow, Report
    from runtime.report.account import Account
    from runtime.spec import JudgeCommand

TEMPLATES = Path(__file__).with_name("templates")
MOST_CLASSES = 20
"""The most classes that are shown; of more, the least robust are."""
MOST_CONFUSED = 10
"""The most pairs of classes that are listed."""
TINY = 1e-6
"""A lower bound of latencies in milliseconds."""
OPTION = re.compile(r"--[a-z][a-z-]*")
"""An option of a command, as it appears in a text."""
DEEPEST = 60
"""Percent of colour in a cell of the confusion matrix with all images of its row, so that the figure stays readable."""


class Section(NamedTuple):
    """A section of the page: the name of its anchor and template, and its heading."""

    name: str
    title: str


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the confusion matrix. `part` is its percent of colour."""

    count: int
    part: int
    kind: str


@dataclass(frozen=True)
class Confused:
    """Images of one class taken for another: their number, and their `part` of the class's images."""

    label: str
    taken: str
    count: int
    part: float


def environment(*folders: Path) -> jinja2.Environment:
    """Return the jinja2 environment of all pages, with templates from `folders` and from TEMPLATES.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.

    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=percent, interval=interval, signed=signed, radius=radius, duration=duration)
    made.filters.update(unbroken=unbroken, sentence=sentence)
    return made


def sentence(text: str) -> str:
    """Return a text with a capital first letter; `capitalize` would also make all others lower case."""
    return text[:1].upper() + text[1:]


def unbroken(text: str) -> markupsafe.Markup:
    """Return a text, escaped, in which no line breaks within an option, such as between -- and its word."""
    import markupsafe

    return markupsafe.Markup(OPTION.sub(r'<span class="word">\g<0></span>', str(markupsafe.escape(text))))  # noqa: S704


def render(account: Account) -> str:
    """Return the page: answers, then figures, then circumstances."""
    report = account.report
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            r=report,
            verdict=phrases.verdict_of(report),
            ship=shipping(report),
            answers=answers(account)[1:],
            steps=next_steps(report),
            model=model_facts(account),
            weak=weak_classes(report),
            limits=limits(report),
            findings=phrases.findings(report),
            effect=effect,
            quiet=[check for check in report.checks if check.state == "quiet"],
            unasked=[check for check in report.checks if check.state == "not run"],
            sections=sections(account),
            scale=scale,
            curve=[(point, interval_of(point)) for point in report.eps_curve],
            rows=phrases.accuracy_rows(report),
            called=phrases.attack_names(report),
            union=phrases.union_line(report),
            others=account.others,
            bench=account.bench,
            classes=[row for row in report.per_class if row.n],
            shown=shown_classes(report),
            names=[row.name for row in report.per_class],
            matrix=matrix(report),
            confused=confused(report),
            gallery=tiles(account),
            contrast=2 * report.threat_model.eps,
            machine=machine(report),
            digests=digests(report),
        )
    )


def scale(values: Sequence[float], *, by_factors: bool = False) -> Callable[[float], float]:
    """Return a function from a value to its place in a chart: 0.03 of the width for the least value, 0.97 for the most.

    The scale is linear, or logarithmic if `by_factors`.
    """
    measure = (lambda value: log(max(value, TINY))) if by_factors else float
    low, high = (end(map(measure, values), default=0.0) for end in (min, max))
    return lambda value: 0.03 + 0.94 * (measure(value) - low) / (high - low) if low < high else 0.5


def interval_of(point: CurvePoint) -> tuple[float, float]:
    """Return the 95 % interval of a point of the curve."""
    return wilson(round(point.accuracy * point.n), point.n)


def shown_classes(report: Report) -> list[ClassRow]:
    """Return the classes that have images; of more than MOST_CLASSES, the least robust ones."""
    rows = [row for row in report.per_class if row.n]
    if len(rows) <= MOST_CLASSES:
        return rows
    return sorted(rows, key=lambda row: (row.robust or 0.0, row.label))[:MOST_CLASSES]


def sections(account: Account) -> list[Section]:
    """Return the sections that have content, in the order of the page."""
    report = account.report
    every = {
        Section("accuracy", "Accuracy under attack"): True,
        Section("comparison", "Comparison"): report.paired or account.others,
        Section("radius", "Over eps"): report.eps_curve,
        Section("classes", "By class"): True,
        Section("confusion", "Confusion under attack"): report.attacks,
        Section("cost", "Time per attack"): report.attacks,
        Section("latency", "Latency"): account.bench,
        Section("checks", "Checks"): report.checks or report.warnings,
        Section("gallery", "Gallery"): account.gallery is not None and len(account.gallery),
        Section("limits", "What this run does not show"): True,
        Section("machine", "Machine and artifact"): True,
        Section("repeat", "How to repeat it"): True,
        Section("words", "Words on this page"): True,
    }
    return [section for section, there in every.items() if there]


def matrix(report: Report) -> list[list[MatrixCell]]:
    """Return the confusion matrix; nothing for more than MOST_CLASSES classes."""
    if len(report.confusion) > MOST_CLASSES:
        return []
    return [
        [
            MatrixCell(
                count, round(DEEPEST * count / (sum(row) or 1)), "right" if label == taken else "" if count else "none"
            )
            for taken, count in enumerate(row)
        ]
        for label, row in enumerate(report.confusion)
    ]


def confused(report: Report) -> list[Confused]:
    """Return the pairs of classes that are confused most often, the most frequent first."""
    names = [row.name for row in report.per_class]
    pairs = [
        Confused(names[label], names[taken], count, count / sum(row))
        for label, row in enumerate(report.confusion)
        for taken, count in enumerate(row)
        if count and label != taken
    ]
    return sorted(pairs, key=lambda pair: -pair.count)[:MOST_CONFUSED]


def machine(report: Report) -> list[tuple[str, Any]]:
    """Return the machine card, then the software and engines, always in the same order."""
    device, artifact = dict(report.device), report.artifact
    missing = device.pop(NOT_FOUND, None)
    card = [(name.replace("_", " "), value) for name, value in sorted(device.items())]
    rest = [
        ("not found", missing),
        ("software", ", ".join(f"{name} {version}" for name, version in sorted(report.software.items()))),
        ("engine", artifact.engines),
        *_judge(artifact.judge_command),
        ("gradient graph", _agreement(report.agreement)),
        ("parent's gradient graph", _agreement(report.parent_agreement)),
        ("started", f"{report.started}, took {duration(report.seconds)}"),
    ]
    return [*card, *((name, value) for name, value in rest if value)]


def _judge(judge: JudgeCommand | None) -> list[tuple[str, str]]:
    """Return a judge process's description of itself, and its command."""
    if judge is None:
        return []
    files = "".join(f"; {name} is {digest}" for name, digest in judge.files.items())
    return [("judge", f"{judge.name} {judge.version}, reads {judge.images}: {judge.command}{files}")]


def digests(report: Report) -> list[tuple[str, Any]]:
    """Return what must be equal to reproduce the result."""
    artifact, request = report.artifact, report.request
    version = f"version {artifact.bundle_version}, " if artifact.bundle_version else ""
    pairs = [
        ("bundle", f"{version}{'authenticated' if artifact.authenticated else 'not authenticated'}"),
        ("artifact", artifact.sha256),
        ("engine", artifact.engine_sha256),
        ("library", artifact.provider_library_sha256),
        ("gradient graph", request.gradient_sha256),
        ("images", f"{request.data.sha256}, the first {request.n} of {request.data.name}"),
        ("compared with", request.against),
        ("request", report.request_sha256),
        ("seed", str(report.seed)),
        ("gate", phrases.gate_words(report.gate)),
    ]
    return [(name, value) for name, value in pairs if value]


def _agreement(agreement: Agreement | None) -> str:
    if not agreement:
        return ""
    return f"predicts as the artifact does on {agreement.same_prediction} of {agreement.n} points"
