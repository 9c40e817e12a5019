"""`edgeproof recipes`: whatever a recipe or a command can name is in the list."""

import re
from importlib.metadata import entry_points

import pytest

from pipeline.data.augment import AUGMENTATIONS
from pipeline.methods import METHODS
from pipeline.models import NETWORKS
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
    }


def test_a_recipe_is_told_with_what_it_trains_and_how_long_that_takes():
    told = edgeproof("recipes").stdout
    assert "adaad: resnet18, width 0.25, on fashion-mini, epochs: 4; teacher fashion-mini\n" in told
    assert "3:17 minutes on two cores" in told


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("recipe", "study") for name in names_of(kind)])
def test_what_ships_says_first_what_it_is_for(kind, name):
    assert re.match(r"# \w.{20,}", read_source(name, kind))
