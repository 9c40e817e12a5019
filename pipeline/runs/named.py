"""What recipes and commands may name, each with what is known of it; `edgeproof recipes` prints it."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from pipeline.data.augment import AUGMENTATIONS
from pipeline.methods import METHODS
from pipeline.models import NETWORKS
from pipeline.recipe.schema import Recipe, load_recipe
from pipeline.recipe.source import names_of, read_source
from pipeline.runs.teacher import TEACHERS
from runtime.images.find import DATASETS_GROUP

Lines = tuple[str, ...]


def named() -> dict[str, dict[str, Lines]]:
    """Return, by where they are named, all names that ship with the package, each with lines that describe it."""
    return {
        "Recipes (edgeproof distill NAME, or teach NAME)": {
            name: (in_short(load_recipe(name)), purpose(name, "recipe")) for name in names_of("recipe")
        },
        "Studies (edgeproof study NAME)": {name: (purpose(name, "study"),) for name in names_of("study")},
        "[method] name": {name: (method.source,) for name, method in METHODS.items()},
        "[student] arch": dict.fromkeys(NETWORKS, ()),
        "[teacher] name": {
            name: (f"looked for at {teacher.path}" if teacher.foreign else "ships with the package",)
            for name, teacher in TEACHERS.items()
        },
        "[data] name": dict.fromkeys(sorted(entry.name for entry in entry_points(group=DATASETS_GROUP)), ()),
        "[data] augment": dict.fromkeys(AUGMENTATIONS, ()),
    }


def in_short(recipe: Recipe) -> str:
    """Return what a recipe trains, by what, on what and for how long."""
    student, data, teacher = recipe.student, recipe.data, recipe.teacher
    network = f"{student.arch or student.factory}, width {student.width:g}"
    learns = f"; teacher {teacher.name or teacher.path}" if teacher else ""
    return f"{recipe.method.name}: {network}, on {data.name or data.path}, epochs: {recipe.train.epochs}{learns}"


def purpose(name: str, kind: str) -> str:
    """Return the sentence that a recipe or study of this package begins with, a comment."""
    comment = re.match(r"(?:#.*\n)*", read_source(name, kind))
    text = " ".join(line.removeprefix("#").strip() for line in (comment[0] if comment else "").splitlines())
    return text.partition(". ")[0].rstrip(".")
