"""One cell of a study: trained and judged in its own directory, each part once; what is finished is never repeated."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.data import load_dataset
from pipeline.devices import training_device
from pipeline.distill import distill
from pipeline.evaluate import run_subject
from pipeline.recipe import load_recipe
from pipeline.run_directory import RECIPE, SUMMARY, open_run
from pipeline.study.plan import RUN, Cell, Evaluation, Study
from runtime.errors import BadRecipe
from runtime.images import DATA_ROOT
from runtime.options import run_in
from runtime.progress import log
from runtime.report_schema import REPORT, load_report
from runtime.request import Settings

CHECKPOINT = "best"


def run_cell(study: Study, cell: Cell, directory: Path, *, data_root: Path = DATA_ROOT) -> None:
    """Train the cell, unless that is done, and judge its best checkpoint with every evaluation that is not done.

    Both go on where they were cut off.

    Raises:
        EdgeproofError: whatever `distill` and `run_in` raise; what was finished before stays.

    """
    run = directory / RUN
    if not (run / SUMMARY).exists():
        if _begun_otherwise(run, cell):
            shutil.rmtree(run)  # a failed or stopped run of what the study said before
        distill(cell.recipe, run, data_root=data_root, resume=True)
    for evaluation in study.evaluation:
        if not (directory / evaluation.name / REPORT).exists():
            _evaluate(run, evaluation, directory / evaluation.name, data_root)


def _evaluate(run: Path, evaluation: Evaluation, out: Path, data_root: Path) -> None:
    trained = open_run(run, CHECKPOINT)
    data = trained.recipe.data
    images = load_dataset(data.name, data.path, data_root).test
    settings = Settings(
        attacks=evaluation.attacks,
        threat_model=trained.recipe.threat,
        gate=trained.recipe.gate,
        n=evaluation.n,
        batch=evaluation.batch,
        data_root=data_root,
    )
    log(f"{trained.recipe.name}: {', '.join(evaluation.attacks)}")
    run_in(out, run_subject(trained, images, device=training_device()), settings, resume=True)


def missing(study: Study, directory: Path) -> tuple[str, ...]:
    """Return what a cell still lacks: the training run, evaluations by name; nothing of a finished one."""
    parts = {RUN: SUMMARY, **{evaluation.name: REPORT for evaluation in study.evaluation}}
    return tuple(part for part, last in parts.items() if not (directory / part / last).exists())


def check_unchanged(study: Study, cell: Cell, directory: Path) -> None:
    """Refuse to mix what is finished in a cell's directory with a study that now says something else.

    Raises:
        BadRecipe: it was trained with another recipe, or judged with other attacks or images.

    """
    hint = "give the study another --out, or remove that directory"
    if (directory / RUN / SUMMARY).exists() and _begun_otherwise(directory / RUN, cell):
        raise BadRecipe(f"{directory / RUN / RECIPE} is not the recipe that the study now has for this cell", hint=hint)
    for evaluation in study.evaluation:
        place = directory / evaluation.name
        if (place / REPORT).exists():
            request = load_report(place).request
            if tuple(attack.name for attack in request.attacks) != evaluation.attacks or (
                evaluation.n not in (None, request.n)
            ):
                raise BadRecipe(f"{place} was judged with other attacks or images than the study now has", hint=hint)


def _begun_otherwise(run: Path, cell: Cell) -> bool:
    recipe = run / RECIPE
    return recipe.exists() and load_recipe(str(recipe)) != cell.recipe


@contextmanager
def claimed(directory: Path) -> Iterator[bool]:
    """Hold a cell's directory for this process; yields False where another process holds it. Ends with the process."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".claim").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
