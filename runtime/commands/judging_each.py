"""Judges several precisions on several engines, each in a run of its own; then compares them and sets the exit code."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from rich.console import Console

from runtime.attacks import stages
from runtime.bench.measure import bench
from runtime.bench.record import bench_record
from runtime.commands.judging import EXIT_CODES, Directories, choose_directories, fresh_directory, judged
from runtime.compare.comparison import compare
from runtime.compare.formats import FORMATS, print_text
from runtime.errors import UsageFault
from runtime.files import write_atomic
from runtime.graph.facts import graph_facts
from runtime.machine.sensors import find_sensors
from runtime.records.bench import BENCH
from runtime.report.account import read_account
from runtime.report.formats import FORMATS as FORMATS_OF_A_RUN
from runtime.report.formats import write_formats
from runtime.report.tables import print_line
from runtime.spec import to_json
from runtime.suite.plan import BLIND, mandatory_attacks
from runtime.terminal.log import log
from runtime.verdict.paired import read_finished
from runtime.words import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runtime.bundle.opening import Bundle
    from runtime.compare.comparison import Comparison
    from runtime.options.engine import EngineOptions
    from runtime.options.run import RunOptions
    from runtime.verdict.options import VerifyOptions
    from runtime.verdict.subject import Subject

SECONDS = 2.0
"""The seconds for which each one's latency is measured, one image at a time, after its verdict."""
COMPARISON, PAGE = "comparison.json", "comparison.html"


def judge_each(
    opened: Bundle,
    each: Sequence[EngineOptions],
    subject_of: Callable[[EngineOptions], Subject],
    options: VerifyOptions,
    run: RunOptions,
) -> None:
    """Judge all of them, print a comparison, and exit with the code of the `shipping` one.

    Args:
        opened: the bundle.
        each: the combinations of precision and runner.
        subject_of: opens the subject of one combination; its sessions are closed before the next is opened.
        options: of all verdicts.
        run: the directory that holds a directory for each run, and what to print.

    Raises:
        UsageFault: --shard is given.
        EdgeproofError: see `judge_subject`. Finished runs stay, for --resume.

    """
    if options.shard:
        raise UsageFault(
            "--shard belongs to one run, and --on and --precision ask for several", hint="leave one of them out"
        )
    out = run.out or fresh_directory(opened.manifest.name, "targets")
    options = with_the_same_attacks(opened, each, options)
    where = {_name(one): run.model_copy(update={"out": out / _directory(one)}) for one in each}
    places = [directories_of(opened, one, options, where[_name(one)]) for one in each]
    parent = click.get_current_context()
    for one, directories in zip(each, places, strict=True):
        log.info(f"{_name(one)}: {directories.out}")
        with click.Context(parent.command, parent=parent):
            _judge_one(opened, one, subject_of, options, directories, resume=run.resume)
    finished = [replace(read_finished(place.out), where=name) for name, place in zip(where, places, strict=True)]
    comparison = compare(finished)
    write_atomic(out / COMPARISON, to_json(comparison))
    _write_pages(out, comparison, [place.out for place in places])
    ships = each.index(shipping(each, opened.manifest.ships))
    if run.as_json:
        click.echo(FORMATS["json"](comparison), nl=False)
    else:
        console = Console(highlight=False)
        print_text(comparison, console)
        why = "which ships" if each[ships].precision == opened.manifest.ships else "the first"
        print_line(console, f"the exit code is that of {_name(each[ships])}, {why}; all: {out}")
    parent.exit(EXIT_CODES[finished[ships].report.verdict])


def _write_pages(out: Path, comparison: Comparison, runs: list[Path]) -> None:
    """Write comparison.html, and each run's page with the others beside it, if the extra `report` is installed."""
    if FORMATS_OF_A_RUN["html"].missing:
        return
    write_atomic(out / PAGE, FORMATS["html"](comparison).encode())
    for run in runs:
        write_formats(run, read_account(run, [other for other in runs if other != run]))


def shipping(each: Sequence[EngineOptions], ships: str) -> EngineOptions:
    """Return the one that sets the exit code: the precision that ships on the first runner, else the first of all."""
    first = [one for one in each if one.judge == each[0].judge]
    return next((one for one in first if one.precision == ships), each[0])


def directories_of(opened: Bundle, engine: EngineOptions, options: VerifyOptions, run: RunOptions) -> Directories:
    """Return the directories of one run and of its baseline; raises as `choose_directories` does."""
    manifest, precision = opened.manifest, engine.precision or opened.manifest.ships
    return choose_directories(
        options,
        run,
        name=manifest.name,
        precision=precision,
        gate=manifest.gate,
        has_parent=engine.judges_in_parent(manifest),
    )


def with_the_same_attacks(opened: Bundle, each: Sequence[EngineOptions], options: VerifyOptions) -> VerifyOptions:
    """Return the options with Square for all if the plan adds it for one, so that all face the same attacks."""
    classes = len(opened.manifest.classes)
    asked = {name: stages(name, classes) for name in options.attacks}
    graphs = [opened.manifest.graphs[one.precision or opened.manifest.ships] for one in each]
    if not any(mandatory_attacks(asked, classes, graph_facts(opened.read(graph.forward))) for graph in graphs):
        return options
    return options.model_copy(update={"attacks": (*options.attacks, BLIND)})


def _judge_one(
    opened: Bundle,
    one: EngineOptions,
    subject_of: Callable[[EngineOptions], Subject],
    options: VerifyOptions,
    directories: Directories,
    *,
    resume: bool,
) -> None:
    """Judge one in its directory, and write its latency beside the report."""
    subject = subject_of(one)
    judged(subject, options, directories, resume=resume)
    if (directories.out / BENCH).is_file():
        return
    sensors, started = find_sensors(), timestamp()
    found = bench(subject.session, subject.images, 1, seconds=SECONDS, sensors=sensors, clock=time.perf_counter)
    record = bench_record(opened, one.judge, subject.session.card(), subject.images.name, [found], sensors, started)
    write_atomic(directories.out / BENCH, to_json(record))


def _name(one: EngineOptions) -> str:
    return f"{one.judge} {one.precision}"


def _directory(one: EngineOptions) -> str:
    return _name(one).replace(":", "-").replace(" ", "-").replace("/", "-")
