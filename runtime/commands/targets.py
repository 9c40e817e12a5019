"""`edgeproof targets`: lists the engines that can judge on this machine."""

from __future__ import annotations

import json

import click
from rich.console import Console

from runtime.backends.survey import Surveyed, runners, survey
from runtime.report.tables import print_line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of records instead of lines.")
def targets(as_json: bool) -> None:
    """List the engines that can judge on this machine, one a line, with device and versions, or what is missing.

    Each engine runs one small graph. --on and --gradient-backend take the names in the first column.
    """
    asked = list(runners())
    if as_json:
        click.echo(json.dumps([survey(runner).model_dump() for runner in asked], indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(str(runner)) for runner in asked)
    for runner in asked:  # each line at once: an engine may take seconds
        print_line(console, f"{runner!s:{width}}  {_said(survey(runner))}")


def _said(found: Surveyed) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    if found.device is not None:
        return f"judges on {found.device}{f' ({versions})' if versions else ''}"
    return f"missing: {found.missing}; {found.hint}" if found.hint else f"missing: {found.missing}"
