"""The formats of a report, each a file in the run directory."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from runtime.errors import install
from runtime.files import write_atomic
from runtime.report import cyclonedx, job_annotations, junit, markdown, page, robustbench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from runtime.report.account import Account


@dataclass(frozen=True)
class ReportFormat:
    """A format.

    Args:
        file: the name of its file in the run directory.
        render: returns its text.
        libraries: the libraries of the extra `report` that it needs.

    """

    file: str
    render: Callable[[Account], str]
    libraries: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Return the first library that is needed but not installed; None if all are."""
        return next((name for name in self.libraries if find_spec(name) is None), None)


FORMATS = {
    "html": ReportFormat("report.html", page.render, ("jinja2", "PIL")),
    "markdown": ReportFormat("summary.md", markdown.render),
    "junit": ReportFormat("junit.xml", junit.render),
}
EXCHANGED = {
    "annotations": ReportFormat("annotations.txt", job_annotations.render),
    "cyclonedx": ReportFormat("bom.cdx.json", cyclonedx.render),
    "robustbench": ReportFormat("robustbench.json", robustbench.render),
}
"""Formats for other tools, written only on request."""
ALL = ChainMap(EXCHANGED, FORMATS)
INSTALL = install("report")


def write_formats(directory: Path, account: Account, names: Iterable[str] = FORMATS) -> list[str]:
    """Write the named formats, each completely or not at all; return a line for each that lacks a library."""
    lines = []
    for name in names:
        form = ALL[name]
        if form.missing:
            lines.append(f"no {form.file}: {form.missing} is not installed ({INSTALL})")
        else:
            write_atomic(directory / form.file, form.render(account).encode())
    return lines
