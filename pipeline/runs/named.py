"""The names that recipes and commands can use, each with a description; `edgeproof recipes` prints them."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from pipeline.data.augment import AUGMENTATIONS
from pipeline.methods import METHODS, Method
from pipeline.models import NETWORKS
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.recipe.source import names_of, read_source
from pipeline.recipe.tables import LogTable, TeacherTable
from pipeline.runs.teacher import TEACHERS
from runtime.images.find import DATASETS_GROUP

Lines = tuple[str, ...]
SHIPS = "ships with the package"


def named() -> dict[str, dict[str, Lines]]:
    """Return all names that ship with the package, by the place where they are used, each with its description."""
    return {
        "Recipes (edgeproof distill NAME, or teach NAME)": {
            name: (purpose(name, "recipe"), in_short(load_recipe(name))) for name in names_of("recipe")
        },
        "Studies (edgeproof study NAME)": {name: (purpose(name, "study"),) for name in names_of("study")},
        "[method] name": {name: of_method(name, method) for name, method in METHODS.items()},
        "[student] arch": dict.fromkeys(NETWORKS, ()),
        "[teacher] name": {
            name: (f"looked for at {teacher.path}" if teacher.foreign else SHIPS,) for name, teacher in TEACHERS.items()
        },
        "[data] name": dict.fromkeys(sorted(entry.name for entry in entry_points(group=DATASETS_GROUP)), ()),
        "[data] augment": {name: (augmentation.does,) for name, augmentation in AUGMENTATIONS.items()},
        "[log], beside the TensorBoard files that every run keeps": {
            name: (f"{field.description}; needs the extra {name!r}",) for name, field in LogTable.model_fields.items()
        },
    }


def in_short(recipe: Recipe) -> str:
    """Describe a recipe in one line: method, network, data, epochs, and whether it needs a teacher."""
    student, data, teacher = recipe.student, recipe.data, recipe.teacher
    network = f"{student.arch or student.factory}, width {student.width:g}"
    learns = f"needs the teacher {teacher.name or teacher.path}{_whence(teacher)}" if teacher else "needs no teacher"
    return f"{recipe.method.name}: {network}, on {data.name or data.path}, epochs: {recipe.train.epochs}; {learns}"


def _whence(teacher: TeacherTable) -> str:
    if teacher.name is None:
        return ", which another recipe makes"
    return ", which you download" if TEACHERS[teacher.name].foreign else f", which {SHIPS}"


def of_method(name: str, method: Method) -> Lines:
    """Return what a method does and whether it needs a teacher, its options, and its source."""
    options = ", ".join(method.options.model_fields)
    teacher = "needs a teacher" if method.needs_teacher else "needs no teacher"
    return (f"{method.does}; {teacher}", f"options in [method.{name}]: {options or 'none'}", method.source)


def purpose(name: str, kind: str) -> str:
    """Return the first sentence of the comment at the top of a recipe or study of this package."""
    comment = re.match(r"(?:#.*\n)*", read_source(name, kind))
    text = " ".join(line.removeprefix("#").strip() for line in (comment[0] if comment else "").splitlines())
    return text.partition(". ")[0].rstrip(".")
