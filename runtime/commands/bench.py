"""`edgeproof bench`: measures each requested precision at each batch size; prints a table and writes bench.json."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.backends.table import check_precision, open_session
from runtime.bench.measure import bench as measure
from runtime.bench.record import bench_record
from runtime.bundle.evaluation import evaluation_images
from runtime.commands.bench_table import print_bench
from runtime.external import BACKEND as COMMAND
from runtime.files import check_writable, remove_half_written, write_atomic
from runtime.machine.sensors import find_sensors
from runtime.options.engine import (
    EngineOptions,
    backend_option,
    command_option,
    library_option,
    measure_on_option,
    provider_option,
    tf32_option,
)
from runtime.options.groups import GroupedCommand
from runtime.options.record import NewDirectory
from runtime.options.trust import acceptance_options, open_acceptable
from runtime.records.bench import BENCH, Bench, BenchRun
from runtime.records.report import REPORT
from runtime.spec import to_json
from runtime.terminal.log import log
from runtime.words import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.backends.pairing import Runner
    from runtime.bundle.opening import Bundle
    from runtime.bundle.signing import Trust


OF_A_BENCH = {
    "What is measured": (
        "--precision",
        "--on",
        "--backend",
        "--provider",
        "--provider-library",
        "--judge-command",
        "--tf32",
    ),
    "Bundle": ("--trust", "--state", "--allow-rollback", "--allow-unsigned"),
    "Queries": ("--batch", "--seconds", "--idle"),
    "Output": ("--out", "--json", "--quiet", "--verbose", "--help"),
}


def _sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Parse '1,8,64'; anything else is a usage error."""
    words = [word.strip() for word in value.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise click.BadParameter(f"{value!r} is not a list of batch sizes, as 1,8,64")
    return tuple(dict.fromkeys(int(word) for word in words))


@click.command(cls=GroupedCommand, groups=OF_A_BENCH)
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--batch",
    "batches",
    callback=_sizes,
    default="1,8,64",
    show_default=True,
    help="Images per query, comma-separated.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to measure each precision at each batch size; MLPerf asks for 600.",
)
@click.option(
    "--idle",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds without a query before one query is timed by itself, at the smallest batch; 0 skips this.",
)
@click.option("--precision", "precisions", help="Graphs of the bundle, comma-separated.  [default: all]")
@measure_on_option
@backend_option
@provider_option
@library_option
@command_option
@tf32_option
@acceptance_options
@click.option("--json", "as_json", is_flag=True, help=f"Print {BENCH} instead of the table.")
@click.option("--out", type=NewDirectory(), help=f"Directory to write {BENCH} to; it may already hold a report.")
def bench(
    bundle: Path,
    batches: tuple[int, ...],
    seconds: float,
    idle: float,
    precisions: str | None,
    on: tuple[Runner, ...],
    backend: str,
    provider: str | None,
    provider_library: Path | None,
    judge_command: str | None,
    tf32: bool,
    trust: Trust | None,
    state: Path | None,
    allow_rollback: bool,
    allow_unsigned: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure latency, throughput, power and temperature of the artifact on this machine.

    After a warm-up it sends one query after another. It prints a line each minute and reports what lowered a clock.
    """
    if out is not None:
        check_writable(out)
        remove_half_written(out, BENCH)
    engine = EngineOptions(
        precision=precisions,
        backend=backend,
        provider=provider,
        provider_library=provider_library,
        judge_command=judge_command,
        on=on,
        tf32=tf32,
    ).with_provider()
    judges = engine.on or (engine.judge,)
    opened = open_acceptable(bundle, trust, state, allow_rollback=allow_rollback, allow_unsigned=allow_unsigned)
    one = [opened.manifest.ships] if judge_command else list(opened.manifest.graphs)  # a command runs one model
    names = [word.strip() for word in precisions.split(",")] if precisions else one
    for name in names:
        check_precision(opened, name)
    results = [
        _measured(
            opened, judge, list(dict.fromkeys(names)), batches, _place(out, judge, judges),
            seconds=seconds, idle=idle, tf32=tf32, state=state, command=judge_command,
        )
        for judge in judges
    ]  # fmt: skip
    if as_json:
        written = [to_json(result).decode() for result in results]
        click.echo(written[0] if len(judges) == 1 else f"[{','.join(written)}]\n", nl=False)
        return
    for judge, result in zip(judges, results, strict=True):
        print_bench(result)
        if (place := _place(out, judge, judges)) is not None:
            click.echo(f"bench: {place / BENCH}")
            if (place / REPORT).exists():
                click.echo(f"edgeproof report {place} shows it beside the run")


def _place(out: Path | None, judge: Runner, judges: Sequence[Runner]) -> Path | None:
    """Return the directory of one runner's bench.json: `out`, or a directory in it if there are several runners."""
    return out if out is None or len(judges) == 1 else out / str(judge).replace(":", "-")


def _measured(
    opened: Bundle,
    judge: Runner,
    names: Sequence[str],
    batches: Sequence[int],
    out: Path | None,
    *,
    seconds: float,
    idle: float,
    tf32: bool,
    state: Path | None,
    command: str | None,
) -> Bench:
    """Measure all precisions at all batch sizes on one runner, and the smallest batch also after idling."""
    images, sensors, started = evaluation_images(opened), find_sensors(), timestamp()
    runs: list[BenchRun] = []
    for name in names:
        with open_session(
            opened,
            precision=name,
            backend=judge.backend,
            provider=judge.provider,
            gradient=False,
            tf32=tf32,
            state=state,
            command=command if judge.backend == COMMAND else None,
        ) as session:
            for batch in batches:
                log.info(f"{name}, batch {batch}: {seconds:g} s")
                waits = idle if batch == min(batches) else 0.0
                runs.append(
                    measure(
                        session, images, batch, seconds=seconds, sensors=sensors, clock=time.perf_counter, idle=waits
                    )
                )
                session.confirm()
                result = bench_record(opened, judge, session.card(), images.name, runs, sensors, started)
                if out is not None:  # after each measurement, so that a later failure loses none
                    write_atomic(out / BENCH, to_json(result))
    return result
