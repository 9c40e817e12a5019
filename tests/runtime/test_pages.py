"""The pages that errors send people to: each is there, at its heading, and some error names it."""

import re

import pytest

from runtime.errors import BadRecipe, BadSignature, EdgeproofError, MissingEnvironment, Page
from tests.command_line import edgeproof
from tests.paths import ROOT

PACKAGES = ("runtime", "export", "pipeline", "edgeproof")
SOURCE = "".join(path.read_text() for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
NAMED = {*map(str, Page), *re.findall(r"docs/[\w/-]+\.md(?:#[\w-]+)?", SOURCE)}


def anchors(page):
    """Return the anchors of a page's headings, as the site makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("named", sorted(NAMED))
def test_every_page_that_the_code_names_is_there_at_its_heading(named):
    path, _, anchor = named.partition("#")
    assert (ROOT / path).is_file()
    assert not anchor or anchor in anchors(ROOT / path)


@pytest.mark.parametrize("page", Page, ids=lambda page: page.name)
def test_every_page_is_that_of_some_error(page):
    assert f"Page.{page.name}\n" in SOURCE or f"Page.{page.name}," in SOURCE


def test_an_error_has_the_page_of_its_kind_or_one_of_its_own():
    assert BadRecipe("wrong").page is Page.RECIPES
    assert BadSignature("wrong", page=Page.ATTESTATIONS).page is Page.ATTESTATIONS
    assert EdgeproofError("wrong").page is None
    assert MissingEnvironment("wrong", page=Page.OPENVINO).page is Page.OPENVINO


def test_the_command_line_names_the_page_below_the_hint(tmp_path):
    (tmp_path / "mine.toml").write_text("base = 1\n")
    result = edgeproof("distill", tmp_path / "mine.toml")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-2:] == [
        "hint: give the name of a recipe, or a path that ends in .toml",
        "see: docs/recipes.md",
    ]
