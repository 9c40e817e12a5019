"""`edgeproof report`: writes the files for readers again, from a run directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from runtime.bundle.opening import open_bundle
from runtime.commands.compare import check_distinct
from runtime.errors import MissingEnvironment
from runtime.report.account import read_account
from runtime.report.formats import ALL, FORMATS, INSTALL, write_formats
from runtime.words import did_you_mean


def _formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Parse a list of formats, and return each once and in order; an unknown name is a usage error."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in ALL:
            raise click.BadParameter(f"{name!r} is not a format; known: {', '.join(ALL)}{did_you_mean(name, ALL)}")
    return names


DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=DIRECTORY, metavar="DIR")
@click.argument("others", nargs=-1, type=DIRECTORY, metavar="[OTHER]...")
@click.option(
    "--format",
    "formats",
    callback=_formats,
    default=",".join(FORMATS),
    show_default=True,
    help=f"Formats to write, comma-separated: {', '.join(ALL)}.",
)
@click.option(
    "--bundle",
    type=click.Path(exists=True, path_type=Path),
    help="The bundle that was judged; cyclonedx needs it to list its parts.",
)
def report(run: Path, others: tuple[Path, ...], formats: tuple[str, ...], bundle: Path | None) -> None:
    """Write report.html, summary.md and junit.xml of the run in DIR, from its report.json, evidence and gallery.

    Every OTHER run is shown beside it, image by image where both attacked the same images in the same way. Nothing
    is attacked again, and the verdict stays what it was.

    For other tools: cyclonedx writes bom.cdx.json, a bill of materials; robustbench writes robustbench.json of a run
    that a leaderboard could take; annotations writes annotations.txt for a job of GitHub.
    """
    for name in formats:
        if ALL[name].missing:
            raise MissingEnvironment(f"{ALL[name].file} needs {ALL[name].missing}", hint=INSTALL)
    check_distinct((run, *others))
    account = read_account(run, others)
    write_formats(run, replace(account, manifest=open_bundle(bundle).manifest) if bundle else account, formats)
    for name in formats:
        click.echo(run / ALL[name].file)
