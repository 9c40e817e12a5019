"""Trains and judges one cell of a study in its own directory. Finished parts are never repeated."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

from pipeline.data.sets import load_dataset
from pipeline.recipe.schema import load_recipe
from pipeline.runs.directory import CHECKPOINTS, RECIPE, SUMMARY, open_run, read_summary
from pipeline.runs.distill import distill
from pipeline.runs.evaluate import run_subject
from pipeline.study.plan import RUN, Cell, Evaluation, Study
from pipeline.training.devices import training_device
from runtime.commands.judging import run_in
from runtime.errors import BadRecipe
from runtime.files import sha256
from runtime.images import DATA_ROOT
from runtime.locks import lock_if_free
from runtime.records.report import REPORT, Report, load_report
from runtime.records.request import Request
from runtime.terminal.log import log
from runtime.verdict.case import prepare_case
from runtime.verdict.options import VerifyOptions
from runtime.verdict.run_directory import RUN as RECORD
from runtime.verdict.run_directory import read_request

CHECKPOINT = "best"


class Changed(BadRecipe):
    """The finished parts of a cell differ from what the study now specifies."""


def run_cell(
    study: Study, cell: Cell, directory: Path, *, data_root: Path = DATA_ROOT, allow_weak_teacher: bool = False
) -> None:
    """Train the cell and judge its best checkpoint with every evaluation, unless that is already done.

    Both resume where they were interrupted. A run that began with another recipe, and a report on another network than
    the run now has, are kept under another name.

    Raises:
        EdgeproofError: any error of `distill` and `run_in`; finished parts stay.

    """
    run = directory / RUN
    if not (run / SUMMARY).exists():
        if _begun_otherwise(run, cell):
            _set_aside(run, "it was begun by another recipe")
        distill(cell.recipe, run, data_root=data_root, resume=True, allow_weak_teacher=allow_weak_teacher)
    for evaluation in study.evaluation:
        if own_report(directory, evaluation) is None:
            _evaluate(run, evaluation, directory / evaluation.name, data_root)


def _evaluate(run: Path, evaluation: Evaluation, out: Path, data_root: Path) -> None:
    trained = open_run(run, CHECKPOINT)
    if (out / RECORD).exists() and read_request(out).artifact_sha256 != trained.checkpoint_sha256:
        _set_aside(out, "it judged another network")
    data = trained.recipe.data
    dataset = load_dataset(data.name, data.path, data_root, preprocessing=data.size)
    images = dataset.test.numbered(trained.card.classes)
    subject = run_subject(trained, images, device=training_device())
    options = VerifyOptions(attacks=evaluation.attacks, n=evaluation.n, batch=evaluation.batch, data_root=data_root)
    log.info(f"{trained.recipe.name}: {', '.join(evaluation.attacks)}")
    run_in(out, prepare_case(subject, options), resume=True)


def _set_aside(directory: Path, reason: str) -> None:
    """Rename a directory to the first free NAME.previous-N: it may hold days of work."""
    beside = (directory.with_name(f"{directory.name}.previous-{number}") for number in count(1))
    free = next(path for path in beside if not path.exists())
    log.warning(f"{directory} is kept as {free.name}: {reason}")
    directory.rename(free)


def own_report(directory: Path, evaluation: Evaluation) -> Report | None:
    """Return a cell's report of an evaluation; None if there is no report on the current network of its run.

    Raises:
        BadData: the report is damaged.

    """
    evaluated, network = directory / evaluation.name, directory / RUN / CHECKPOINTS[CHECKPOINT]
    if not (evaluated / REPORT).exists() or not network.exists():
        return None
    report = load_report(evaluated)
    return report if report.request.artifact_sha256 == sha256(network.read_bytes()) else None


def missing(study: Study, directory: Path) -> tuple[str, ...]:
    """Return what a cell still lacks: the training run, or evaluations by name; nothing if it is finished.

    Raises:
        BadInput: the summary or a report is damaged.

    """
    run = (RUN,) if read_summary(directory / RUN) is None else ()
    return (*run, *(each.name for each in study.evaluation if own_report(directory, each) is None))


def check_unchanged(study: Study, cell: Cell, directory: Path) -> None:
    """Refuse to mix the finished parts of a cell with a study that has changed.

    Raises:
        Changed: it was trained with another recipe, or judged with other attacks or images.
        BadInput: a file there is damaged.

    """
    hint = f"give the study another --out, or remove {directory}"
    if (directory / RUN / SUMMARY).exists() and _begun_otherwise(directory / RUN, cell):
        raise Changed(
            f"{directory / RUN / RECIPE} differs from the recipe that the study now has for this cell", hint=hint
        )
    for evaluation in study.evaluation:
        report = own_report(directory, evaluation)
        if report is not None and _asked_otherwise(report.request, evaluation):
            evaluated = directory / evaluation.name
            raise Changed(f"{evaluated} was judged with other attacks or images than the study now has", hint=hint)


def _begun_otherwise(run: Path, cell: Cell) -> bool:
    recipe = run / RECIPE
    return recipe.exists() and load_recipe(str(recipe)).to_dict() != cell.recipe.to_dict()


def _asked_otherwise(request: Request, evaluation: Evaluation) -> bool:
    attacks, n = tuple(attack.name for attack in request.attacks), evaluation.n or request.data.n
    return (attacks, request.n) != (evaluation.attacks, n)


def claimed(directory: Path) -> AbstractContextManager[bool]:
    """Claim a cell's directory for this process; yields False if another process holds it. Ends with the process."""
    return lock_if_free(directory / ".claim")
