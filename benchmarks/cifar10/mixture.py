"""Refuses what must not be one table: cells of another recipe, another teacher, or other images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cifar10.cell import CELLS, RUN
from benchmarks.cifar10.record import Record, read_records, settings_of
from benchmarks.cifar10.study import Scale, Study, cells, recipe_of
from pipeline.data.sets import hold_out, load_dataset
from pipeline.methods import METHODS
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.runs.directory import RECIPE, check_same_recipe
from pipeline.runs.teacher import locate_teacher
from runtime.errors import BadRecipe, UsageFault
from runtime.files import sha256

HINT = "use the --scale, images and teacher with which these cells were made, or another directory"
TEACHER, TRAINED, TESTED = "teachers", "training images", "test images"
Shared = Mapping[str, str | int]
"""What cells of one table have in common, by its name in a message."""


def check_place(study: Study, scale: Scale, data: Path, teacher: Path, out: Path) -> None:
    """Check that the cells in `out`, begun or finished, are of this scale, these images and this teacher.

    A begun cell holds its recipe, paths included. A finished one holds its recipe without paths, and the digests, so
    that folders may move.

    Raises:
        UsageFault: they are not.
        EdgeproofError: a record, the images or the teacher cannot be read.

    """
    recipes = {cell.name: recipe_of(study, scale, cell, data, teacher) for cell in cells(study, scale)}
    records = read_records(out / CELLS)
    check_records(study, scale, records, asked_for(list(recipes.values())) if records else None)
    finished = {record.name for record in records}
    for name, recipe in recipes.items():
        begun = out / name / RUN / RECIPE
        if begun.is_file():
            before = load_recipe(str(begun))
            try:
                check_same_recipe(_moved(before, recipe) if name in finished else before, recipe)
            except BadRecipe as error:
                raise UsageFault(f"{name}: {error.message}", hint=HINT) from None


def _moved(before: Recipe, now: Recipe) -> Recipe:
    """Return a recipe with the paths of another."""
    data, teacher = before.data.model_copy(update={"path": now.data.path}), before.teacher
    if teacher is not None and now.teacher is not None:
        teacher = teacher.model_copy(update={"path": now.teacher.path})
    return before.model_copy(update={"data": data, "teacher": teacher})


def check_records(study: Study, scale: Scale, records: Sequence[Record], asked: Shared | None = None) -> None:
    """Check that records are of cells of this scale, of one teacher, and of the same images.

    Args:
        study: the study.
        scale: of which the table is.
        records: its cells.
        asked: what the cells that are still to be made will have.

    Raises:
        UsageFault: they are not.

    """
    known = {cell.name: cell for cell in cells(study, scale)}
    found = {name: ("what is asked for", value) for name, value in (asked or {}).items()}
    for record in records:
        if record.name not in known:
            raise UsageFault(f"{record.name} is no cell of this scale", hint=HINT)
        _check_settings(record, recipe_of(study, scale, known[record.name], Path("data"), Path("teacher")))
        for name, value in shared(record).items():
            whose, other = found.setdefault(name, (record.name, value))
            if value != other:
                raise UsageFault(
                    f"{whose} and {record.name} have different {name}: {_short(other)} and {_short(value)}", hint=HINT
                )


def _check_settings(record: Record, recipe: Recipe) -> None:
    reached = {name: getattr(record, name) for name in settings_of(recipe)}
    reached |= {"method": record.method, "precision": record.training.precision}
    wanted = settings_of(recipe) | {"method": recipe.method.name}
    if recipe.train.precision != "auto":  # which the machine resolves
        wanted["precision"] = recipe.train.precision
    wrong = [f"{name} = {reached[name]} and not {value}" for name, value in wanted.items() if reached[name] != value]
    if wrong:
        raise UsageFault(f"{record.name}: {', '.join(wrong)}", hint=HINT)


def shared(record: Record) -> Shared:
    """Return what a record must have in common with the others. The hold-out, so also its rest, is drawn by seed."""
    training, tested = record.training, record.test_data
    return {
        "numbers of training images": training.training_data.n,
        f"{TRAINED} for seed {record.seed}": training.training_data.sha256,
        "numbers of judged images": record.n,
        **({TEACHER: training.teacher_sha256} if training.teacher_sha256 else {}),
        **({TESTED: tested.sha256} if tested else {}),
    }


def asked_for(recipes: Sequence[Recipe]) -> Shared:
    """Return the digests of the images and of the teacher that recipes of one table name.

    Raises:
        BadData, BadModel: the images or the teacher cannot be read.

    """
    images = load_dataset(None, recipes[0].data.path)
    digests = {TESTED: images.test.sha256}
    for seed, recipe in {recipe.seed: recipe for recipe in recipes}.items():
        training, _ = hold_out(images.train, recipe.data.holdout, seed)
        digests[f"{TRAINED} for seed {seed}"] = training.sha256
    taught = (recipe.teacher for recipe in recipes if METHODS[recipe.method.name].needs_teacher)
    if teacher := next(filter(None, taught), None):
        digests[TEACHER] = sha256(locate_teacher(teacher)[0].read_bytes())
    return digests


def _short(value: str | int) -> str:
    return str(value)[:12]
