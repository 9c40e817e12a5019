"""`edgeproof targets`: what this machine can judge on."""

from __future__ import annotations

import json

import click
from rich.console import Console

from runtime.backends.survey import Surveyed, runners, survey
from runtime.report.tables import print_line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of records instead of lines.")
def targets(as_json: bool) -> None:
    """List what this machine can judge on, a line each: backend, provider, device, versions; else what is missing.

    Each is asked for the answers of one small graph. Its name is what --on and --gradient-backend take.
    """
    found = [survey(runner) for runner in runners()]
    if as_json:
        click.echo(json.dumps([each.model_dump() for each in found], indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(_name(each)) for each in found)
    for each in found:
        print_line(console, f"{_name(each):{width}}  {_said(each)}")


def _name(found: Surveyed) -> str:
    return f"{found.backend}:{found.provider}"


def _said(found: Surveyed) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    if found.device is not None:
        return f"judges on {found.device}{f' ({versions})' if versions else ''}"
    return f"missing: {found.missing}; {found.hint}" if found.hint else f"missing: {found.missing}"
