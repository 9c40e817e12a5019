"""Every example of the documentation runs as written on a small model, or is in one list with its reason.

A line of a block is an example if it begins as a command does. Where a command would attack or train for long, options
that shorten it are added. Another model, and other pictures, lie where the page says that the reader's lie.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.recipe.schema import load_recipe
from tests.flow.examples import ELSEWHERE, NOT_RUN, PAGES, commands, elsewhere, reasons
from tests.flow.laid import HOLDS, lay
from tests.flow.stage import build, judge
from tests.paths import ROOT

pytestmark = pytest.mark.timeout(1800)
SHOWN = [page for page in PAGES if any(not reasons(command) for command in commands(page))]
RECIPES = sorted({c for page in PAGES for c in commands(page) if re.match(r"edgeproof (distill|teach) cifar10", c)})


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_runs_elsewhere_is_a_page_and_its_test(page):
    assert page.split()[0] in PAGES
    assert Path(page.split()[0]).name in (ROOT / ELSEWHERE[page]).read_text()


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_reason_is_that_of_some_command(pattern):
    assert [command for page in PAGES for command in commands(page) if re.fullmatch(pattern, command)]


@pytest.mark.parametrize("command", RECIPES)
def test_a_recipe_that_is_not_run_is_one(command):
    words = command.split("#")[0].split()
    assert load_recipe(words[2], [words[i + 1] for i, word in enumerate(words) if word == "--set"])


def tables():
    return [(page, body) for page, found in PAGES.items() for language, _, body in found if language == "toml"]


@pytest.mark.parametrize(("page", "table"), [each for each in tables() if "keys = " not in each[1]])
def test_a_table_of_a_recipe_is_read(page, table, tmp_path):
    base = "" if "base = " in table else 'base = "cifar10"\n'
    text = base + table.replace('"my-recipe"', '"cifar10"').replace("cifar10-int8", "mine").replace(
        '"..."', f'"{"0" * 64}"'
    )
    (tmp_path / "mine.toml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.toml"))


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    place = tmp_path_factory.mktemp("stage")
    build(place)
    return place


@pytest.mark.parametrize("page", SHOWN)
def test_the_commands_of_a_page_run(page, stage, tmp_path):
    place = tmp_path / "here"
    shutil.copytree(stage, place, symlinks=True)
    lay(page, place, PAGES[page])
    for command in dict.fromkeys(commands(page)):
        if not reasons(command):
            judge(command, place, page)
    HOLDS.get(page, lambda _: None)(place)


def test_every_block_is_in_a_language_of_which_the_examples_are_tested():
    blocks = [(page, *block) for page, found in PAGES.items() for block in found]
    assert {language for _, language, *_ in blocks} == {"sh", "bash", "text", "toml", "yaml", "json", "python"}
    for page, language, title, body in blocks:
        if language in ("yaml", "json"):
            assert {"yaml": yaml.safe_load, "json": json.loads}[language](body)
        if language == "python":  # it runs elsewhere, or lies where the page's commands find it
            assert title or elsewhere(page, language), page
