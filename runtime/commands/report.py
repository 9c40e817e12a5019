"""`edgeproof report`: what people read, made again from a run directory."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.compare import check_distinct
from runtime.errors import MissingEnvironment
from runtime.report.account import read_account
from runtime.report.formats import FORMATS, INSTALL, write_formats


def _formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the FORMATS asked for, in order and once each; an unknown name is a usage error."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in FORMATS:
            raise click.BadParameter(f"{name!r} is not a format; known: {', '.join(FORMATS)}")
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
    help="Which to write, comma-separated.",
)
def report(run: Path, others: tuple[Path, ...], formats: tuple[str, ...]) -> None:
    """Write report.html, summary.md and junit.xml of the run in DIR, from its report.json, evidence and gallery.

    Every OTHER run is shown beside it, image by image where both attacked the same images in the same way. Nothing
    is attacked again, and the verdict stays what it was.
    """
    for name in formats:
        if FORMATS[name].missing:
            raise MissingEnvironment(f"{FORMATS[name].file} needs {FORMATS[name].missing}", hint=INSTALL)
    check_distinct((run, *others))
    write_formats(run, read_account(run, others), formats)
    for name in formats:
        click.echo(run / FORMATS[name].file)
