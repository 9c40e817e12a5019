"""Facts about the model, from its bundle, its run and its benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.report.answers import gap
from runtime.words import file_size, points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.records.report import Model, Report
    from runtime.report.account import Account


def model_facts(account: Account) -> list[tuple[str, str]]:
    """Return the known facts about the model, each with its name."""
    report, model = account.report, account.report.artifact.model
    return [
        *(_recorded(model, report) if model else ()),
        ("Classes", str(len(report.per_class))),
        ("Latency", latency(account)),
        *([("Clean to robust", f"{points(gap(report))} lost")] if report.robust_accuracy else []),
    ]


def _recorded(model: Model, report: Report) -> Iterator[tuple[str, str]]:
    """Yield the facts from the bundle."""
    if model.architecture:
        yield "Network", model.architecture
    if model.weights:
        yield "Parameters", count(model.weights)
    sizes = sorted(model.sizes.items(), key=lambda each: each[0] != report.artifact.precision)
    yield "Size", ", ".join(f"{file_size(size)} in {name}" for name, size in sizes)
    channels, height, width = model.image
    yield "Image", f"{channels} x {height} x {width}"
    if model.method:
        yield "Trained by", model.method
        network = f" ({model.teacher_architecture})" if model.teacher_architecture else ""
        yield "Teacher", f"{model.teacher}{network}" if model.teacher else "none"


def latency(account: Account) -> str:
    """Return the latency of one image, if `edgeproof bench` measured this artifact."""
    runs = account.bench.runs if account.bench else ()
    own = (run for run in runs if run.sha256 == account.report.artifact.sha256 and run.batch == 1)
    run = next(own, None)
    if run is None:
        return "not measured (edgeproof bench)"
    return f"{run.latency_ms.p50:.3g} ms (p99 {run.latency_ms.p99:.3g} ms)"


def count(number: int) -> str:
    """Write a number of parameters: 700 k, 11.2 M."""
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.3g} k" if number >= 1e3 else str(number)
