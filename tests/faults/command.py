"""The command line of the faults: which parts, how many, where to; each trial is a line, and none is done twice."""

import os
import sys
from functools import partial
from pathlib import Path

import click

from tests.faults import library
from tests.faults.library import FAULTS

NAMES = ("install", "merge", "bench", "pack", "verify", "export", "distill")
PARTS = ("kills", "writes", "fleet", "mutations")
ROUND = 8
"""So many writes of a command are tried before the next fault and command has its turn."""


def listed(known):
    def read(ctx, param, value):
        names = tuple(dict.fromkeys(value.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"{unknown[0]!r} is not known: {', '.join(known)}")
        return names

    return read


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Where they run.  [default: --out]")
@click.option("--parts", callback=listed(PARTS), default=",".join(PARTS), show_default=True)
@click.option("--commands", callback=listed(NAMES), default=",".join(NAMES), show_default=True)
@click.option("--faults", callback=listed(tuple(FAULTS)), default=",".join(FAULTS), show_default=True)
@click.option("--kills", default=100, show_default=True, help="Of each command.")
@click.option("--stop", type=int, help="Of each command so many writes, evenly spread.  [default: all]")
@click.option("--rounds", default=4, show_default=True, help="Of the fleet.")
@click.option("--mutations", default=10_000, show_default=True, help="Of each kind.")
def main(out, work, parts, commands, faults, kills, stop, rounds, mutations):
    """Kill, starve and deceive the commands, and write down what came of it.

    Begun again with the same --out it goes on.
    """
    if "writes" in parts and not library.preloaded():
        _again_with_the_library(out)
    from tests.faults.report import write_report
    from tests.faults.session import Session

    session = Session(out, work)
    try:
        for part in parts:
            for trials in _of(part, session, commands, faults, kills, stop, rounds, mutations):
                trials()
                write_report(out, session)
    finally:
        session.close()
    if wrong := write_report(out, session):
        raise click.ClickException(f"{wrong} trials ended wrong; {out / 'faults.md'} says which")


def _of(part, session, commands, faults, kills, stop, rounds, mutations):
    """Yield what makes the trials of a part, piece by piece."""
    if part == "kills":
        yield from (partial(session.kill, name, kills) for name in commands)
    elif part == "writes":
        asked = {(name, fault): session.writes(name, fault)[:stop] for name in commands for fault in faults}
        for first in range(0, max(map(len, asked.values())), ROUND):
            for each, numbers in asked.items():
                yield partial(session.disturb, *each, numbers[first : first + ROUND])
    elif part == "fleet":
        yield partial(session.fleet, rounds)
    else:
        from tests.faults.mutations import KINDS, SLOW

        yield from (partial(session.mutate, kind, mutations // SLOW.get(kind, 1)) for kind in KINDS)


def _again_with_the_library(out):
    if library.compiler() is None:
        raise click.ClickException(
            "there is no C compiler, and faults at writes need one: --parts kills,fleet,mutations"
        )
    out.mkdir(parents=True, exist_ok=True)
    path = library.build(out)
    environment = {**os.environ, "LD_PRELOAD": str(path), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]], environment)
