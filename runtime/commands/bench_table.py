"""bench.json on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from runtime.report.tables import add_row, new_table, print_line

if TYPE_CHECKING:
    from runtime.records.bench import Bench, BenchRun

HEADINGS = ("precision", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "W", "mJ/image", "°C", "throttled")
LOCKED = {True: "clocks locked", False: "clocks not locked", None: "whether clocks are locked is unknown"}


def print_bench(result: Bench) -> None:
    """Print a row for every precision and batch size, then remarks on each, and the warnings."""
    console = Console(highlight=False, soft_wrap=True)
    table = new_table(HEADINGS)
    for run in result.runs:
        add_row(table, (run.precision, *_cells(run)))
    console.print(table)
    settings = {_setting(run) for run in result.runs}
    for run in result.runs:
        said = [*_beside(run), *([_setting(run)] if len(settings) > 1 else [])]
        if said:
            print_line(console, f"{run.precision}, batch {run.batch}: {'; '.join(said)}")
    if len(settings) == 1:
        print_line(console, settings.pop())
    for warning in result.warnings:
        print_line(console, f"warning: {warning}")
    print_line(console, f"{result.name} on {result.backend}/{result.provider}")


def _setting(run: BenchRun) -> str:
    """Return the machine's settings in words; they are printed once if they were the same for all rows."""
    mode = f"power mode {run.power_mode}" if run.power_mode else "power mode unknown"
    return f"{mode}, {LOCKED[run.clocks_locked]}"


def _beside(run: BenchRun) -> list[str]:
    """Return remarks on a row: how the minutes changed, and the first query after idling."""
    said = []
    if run.last_over_first is not None:
        said.append(f"the last of {len(run.minutes)} minutes took {run.last_over_first:.2f} times the first")
    if run.after_idle_ms is not None and run.idle_seconds is not None:
        said.append(f"{run.after_idle_ms:.3g} ms after {run.idle_seconds:g} s of idling")
    return said


def _cells(run: BenchRun) -> tuple[str, ...]:
    times, power = run.latency_ms, run.power
    hottest = max((level.most for level in run.celsius.values()), default=None)
    joules = power.joules_an_image if power else None
    return (
        str(run.batch),
        *(f"{value:.3g}" for value in (times.p50, times.p90, times.p99)),
        f"{run.images_per_second:.0f}",
        f"{power.watts:.1f}" if power and power.watts is not None else "-",
        "-" if joules is None else f"{1000 * joules:.3g}",
        "-" if hottest is None else f"{hottest:.0f}",
        "yes" if run.throttled else "no",
    )
