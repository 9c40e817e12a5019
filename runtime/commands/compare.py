"""`edgeproof compare`: finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from runtime.compare.comparison import compare as put_side_by_side
from runtime.compare.formats import FORMATS, print_text
from runtime.errors import UsageFault
from runtime.files import write_atomic
from runtime.options.record import OneOf
from runtime.verdict.paired import read_finished

if TYPE_CHECKING:
    from collections.abc import Iterable

BY_SUFFIX = {".md": "markdown", ".html": "html", ".json": "json", ".csv": "csv"}


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="REPORT...")
@click.option(
    "--format",
    "form",
    type=OneOf(list(FORMATS)),
    help="Format to write.  [default: what the suffix of --out names, else text]",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: stdout]")
def compare(runs: tuple[Path, ...], form: str | None, out: Path | None) -> None:
    """Compare finished runs, each a run directory or its report.json. The first run is the base.

    The runs may differ in precision, backend, device or version. The table shows accuracies with their intervals. Where
    the images are the same, it also shows what changed, image by image.
    """
    if len(runs) < 2:
        raise UsageFault("there is nothing to compare with", hint="name two or more runs, the base first")
    check_distinct(runs)
    comparison = put_side_by_side([read_finished(path) for path in runs])
    form = form or (BY_SUFFIX.get(out.suffix, "text") if out else "text")
    if out:
        write_atomic(out, FORMATS[form](comparison).encode())
    elif form == "text":
        print_text(comparison, Console(highlight=False))
    else:
        click.echo(FORMATS[form](comparison), nl=False)


def check_distinct(runs: Iterable[Path]) -> None:
    """Refuse a run that is named twice, by its directory or by the report.json in it.

    Raises:
        UsageFault: two paths name the same run.

    """
    seen: set[Path] = set()
    for path in runs:
        directory = path.resolve()
        directory = directory if directory.is_dir() else directory.parent
        if directory in seen:
            raise UsageFault(f"{path} is compared with itself", hint="name every run once")
        seen.add(directory)
