"""`edgeproof recipes`: whatever a recipe or a command can name is in the list."""

import re
from importlib.metadata import entry_points

import pytest

from pipeline.data.augment import AUGMENTATIONS
from pipeline.methods import METHODS
from pipeline.models import NETWORKS
from pipeline.recipe.schema import load_recipe
from pipeline.recipe.source import names_of, read_source
from pipeline.runs.teacher import TEACHERS
from tests.command_line import edgeproof


def test_every_name_is_listed_below_the_key_that_takes_it():
    told = edgeproof("recipes").stdout
    sections = {
        title: block.splitlines() for title, block in re.findall(r"^(\S.*):\n((?:  .*\n)+)", told, re.MULTILINE)
    }
    names = {title: [line.strip() for line in lines if line[2] != " "] for title, lines in sections.items()}
    assert names == {
        "Recipes (edgeproof distill NAME, or teach NAME)": names_of("recipe"),
        "Studies (edgeproof study NAME)": names_of("study"),
        "[method] name": list(METHODS),
        "[student] arch": list(NETWORKS),
        "[teacher] name": list(TEACHERS),
        "[data] name": sorted(entry.name for entry in entry_points(group="edgeproof.datasets")),
        "[data] augment": list(AUGMENTATIONS),
        "[log], beside the TensorBoard files that every run keeps": ["wandb", "mlflow"],
    }


def test_a_recipe_is_told_with_what_it_trains_and_how_long_that_takes():
    told = edgeproof("recipes").stdout
    assert (
        "adaad: resnet18, width 0.25, on fashion-mini, epochs: 4; needs the teacher fashion-mini, which ships" in told
    )
    assert "3:17 minutes on two cores" in told


def test_every_recipe_and_method_says_whether_it_needs_a_teacher():
    told = edgeproof("recipes").stdout
    for name in names_of("recipe"):
        (line,) = re.findall(rf"^  {name}\n      .+\n      (.+)\n", told, re.MULTILINE)
        assert line.startswith(f"{load_recipe(name).method.name}: ")
        assert ("; needs the teacher " in line) == (load_recipe(name).teacher is not None)
        assert line.endswith("; needs no teacher") == (load_recipe(name).teacher is None)
    for name, method in METHODS.items():
        does, options = re.findall(
            rf"^  {name}\n      (.+)\n      options in \[method.{name}\]: (.+)\n", told, re.MULTILINE
        )[0]
        assert does.endswith("; needs a teacher" if method.needs_teacher else "; needs no teacher")
        assert [*method.options.model_fields] == ([] if options == "none" else options.split(", "))


def test_everything_that_a_recipe_can_be_given_says_what_it_does():
    told = edgeproof("recipes").stdout
    for name in (*AUGMENTATIONS, "wandb", "mlflow"):
        assert re.search(rf"^  {name}\n      \w.{{20,}}", told, re.MULTILINE), name


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("recipe", "study") for name in names_of(kind)])
def test_what_ships_says_first_what_it_is_for(kind, name):
    assert re.match(r"# \w.{20,}", read_source(name, kind))
