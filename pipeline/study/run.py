"""Runs the cells of a study, one after another in this process or in parallel on a Ray cluster."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data.sets import load_dataset
from pipeline.runs.directory import SUMMARY
from pipeline.runs.teacher import check_teacher
from pipeline.study.cell import Changed, check_unchanged, claimed, missing, run_cell
from pipeline.study.plan import RUN, Cell, Study, expand
from runtime.errors import BadInput, EdgeproofError, MissingEnvironment, first_line, missing_extra
from runtime.files import write_atomic
from runtime.terminal.log import log

FAILURE = "failure.txt"


@dataclass(frozen=True)
class Attempt:
    """The outcome of an attempt to run a cell: `elsewhere` if another process has it; `reason` is one line."""

    cell: str
    state: Literal["finished", "failed", "elsewhere", "waiting"]
    reason: str = ""


def attempt(study: Study, cell: Cell, out: Path, data_root: Path, allow_weak_teacher: bool = False) -> Attempt:
    """Run one cell, unless it is finished or another process has it. A failure is recorded, not raised."""
    directory = out / cell.name
    with claimed(directory) as mine:
        if not mine:
            return Attempt(cell.name, "elsewhere", "another process is at it")
        failure = directory / FAILURE
        failure.unlink(missing_ok=True)
        try:
            check_unchanged(study, cell, directory)
            if missing(study, directory):
                run_cell(study, cell, directory, data_root=data_root, allow_weak_teacher=allow_weak_teacher)
        except Exception as error:  # of any kind: the other cells continue, and this one is reported at the end
            text = str(error) if isinstance(error, EdgeproofError) else traceback.format_exc()
            write_atomic(failure, f"{type(error).__name__}: {text}\n".encode())
            return Attempt(cell.name, "failed", f"{type(error).__name__}: {first_line(error)} ({failure})")
    return Attempt(cell.name, "finished")


def run_here(
    study: Study, cells: Sequence[Cell], out: Path, data_root: Path, allow_weak_teacher: bool = False
) -> Iterator[Attempt]:
    """Run the cells in order."""
    for cell in cells:
        log.info(f"{cell.name} ...")
        yield attempt(study, cell, out, data_root, allow_weak_teacher)


def look(study: Study, cells: Sequence[Cell], out: Path) -> Iterator[Attempt]:
    """Run nothing. Report for every cell whether it is finished, failed last time, or is still waiting."""
    for cell in cells:
        failure = out / cell.name / FAILURE
        try:
            check_unchanged(study, cell, out / cell.name)
            lacks = missing(study, out / cell.name)
        except BadInput as error:
            yield Attempt(cell.name, "failed", str(error))
            continue
        if not lacks:
            yield Attempt(cell.name, "finished")
        elif failure.exists():
            yield Attempt(cell.name, "failed", str(failure))
        else:
            yield Attempt(cell.name, "waiting", f"lacks {', '.join(lacks)}")


def unfinished(study: Study, cells: Sequence[Cell], out: Path) -> Iterator[Cell]:
    """Yield the cells that will be run. Damaged cells are left out; their attempts report them."""
    for cell in cells:
        with suppress(BadInput):
            if missing(study, out / cell.name):
                yield cell


def check_all_unchanged(study: Study, cells: Sequence[Cell], out: Path) -> None:
    """Run `check_unchanged` for every cell. Damaged cells are left to their attempts to report.

    Raises:
        Changed: see `check_unchanged`.

    """
    for cell in cells:
        try:
            check_unchanged(study, cell, out / cell.name)
        except Changed:
            raise
        except BadInput:
            pass


def check_ready(study: Study, cells: Sequence[Cell], out: Path, data_root: Path) -> None:
    """Check before any run that the remaining cells have their data and teachers.

    Raises:
        BadData, BadModel, BadRecipe: data or a teacher are missing, or cannot be used.

    """
    left = list(unfinished(study, cells, out))
    for cell in left:
        if not (out / cell.name / RUN / SUMMARY).exists():
            check_teacher(cell.recipe)
    tables = (cell.recipe.data for cell in left)
    for name, path, size in dict.fromkeys((data.name, data.path, data.size) for data in tables):
        load_dataset(name, path, data_root, preprocessing=size)


def needs(cell: Cell, has_gpus: bool) -> dict[str, float]:
    """Return the resources of a cell on a Ray cluster with or without GPUs."""
    resources = cell.recipe.resources
    return {"num_cpus": resources.cpus, "num_gpus": float(has_gpus) if resources.gpus is None else resources.gpus}


def run_on_ray(
    study: Study, cells: Sequence[Cell], out: Path, data_root: Path, address: str, allow_weak_teacher: bool = False
) -> Iterator[Attempt]:
    """Run every cell as a Ray task with the [resources] of its recipe; yields attempts as they end.

    Ray schedules them. Every node must see `out` and the data under the same path, and have this package. `address` is
    that of a running cluster, 'auto' to find one, or 'local' to start one here.

    Raises:
        MissingEnvironment: Ray is not installed, or a cell needs more resources than a local Ray has.

    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("`edgeproof study --ray`", ("ray",), error) from error
    out, data_root = out.absolute(), data_root.absolute()
    # Ray puts the working directory first on a worker's path. The hook runs before any task, and puts ours before it.
    workers = {"worker_process_setup_hook": "edgeproof.find_ours_first"}
    with ray.init(address=address, include_dashboard=False, log_to_driver=True, runtime_env=workers):
        has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        needed = {cell.name: needs(cell, has_gpus=has.get("GPU", 0) > 0) for cell in cells}
        if address == "local":  # a cluster may grow, and Ray reports tasks that wait for that
            for cell in unfinished(study, cells, out):
                _check_enough(cell.name, needed[cell.name], has)
        # One process per cell, because the GPUs that it sees and its threads are set only once.
        task = ray.remote(max_retries=0, max_calls=1)(_attempt_by_name)
        waiting = {
            task.options(**need).remote(study, name, out, data_root, allow_weak_teacher): name
            for name, need in needed.items()
        }
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:  # the worker died: out of memory, a lost node
                yield Attempt(name, "failed", f"{type(error).__name__}: {first_line(error)}")


def _check_enough(name: str, need: dict[str, float], has: dict[str, float]) -> None:
    for key, what in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        if need[key] > has.get(what, 0):
            raise MissingEnvironment(
                f"{name} needs {need[key]:g} {what}s, but this machine has {has.get(what, 0):g}",
                hint=f'put "resources.{what.lower()}s={has.get(what, 0):g}" into `set` of the study, or of a copy',
            )


def _attempt_by_name(study: Study, name: str, out: Path, data_root: Path, allow_weak_teacher: bool) -> Attempt:
    """Attempt one cell on a worker. The worker resolves the recipe itself, since recipe records cannot be sent."""
    import ray

    if not ray.get_gpu_ids():  # newer Ray lets a task without GPUs see those of its node
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    cell = next(cell for cell in expand(study) if cell.name == name)
    return attempt(study, cell, out, data_root, allow_weak_teacher)
