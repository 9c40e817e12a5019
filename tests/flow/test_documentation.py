"""The documentation as a site: it builds without a warning, and what was built needs nothing but itself."""

import functools
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlsplit

import click
import pytest

from runtime.cli import main
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
"""What a browser fetches by itself."""

pytestmark = [pytest.mark.slow, pytest.mark.check]


class Page(HTMLParser):
    """What a page is known by (`ids`), what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if name in ("href", "src") and value:
                (self.loads if (tag, name) in LOADED else self.links).add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the site, built from a copy of the tracked files: nothing that lies beside them is needed."""
    place = tmp_path_factory.mktemp("documentation")
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if not name.startswith(("tests/", "benchmarks/")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return place / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def target(page, link):
    """Return the file and the anchor that a link on `page` means; None for another site's."""
    path, anchor = urldefrag(link)
    if urlsplit(path).scheme:
        return None
    return ((page.parent / unquote(path)).resolve() if path else page), unquote(anchor)


def test_every_page_of_the_documentation_is_built(pages, site):
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    for source in sources:
        name = "index.html" if source.name == "README.md" else f"{source.stem}.html"
        assert site / source.parent / name in pages


def test_every_link_and_anchor_leads_somewhere(pages):
    for page, parsed in pages.items():
        for link in parsed.links | parsed.loads:
            if (meant := target(page, link)) is None:
                continue
            path, anchor = meant
            assert path.is_file(), f"{page.name}: {link}"
            if anchor and path in pages:
                assert anchor in pages[path].ids, f"{page.name}: {link}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_the_front_pages_link_to_is_there(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert not [link for link in links if not (ROOT / link).is_file()]


def test_every_page_can_be_reached_from_the_first(pages, site):
    reached, waiting = set(), [site / "index.html"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        meant = (target(page, link) for link in pages[page].links)
        waiting += {m[0] for m in meant if m and m[0] in pages} - reached
    assert reached == set(pages)


def test_no_page_loads_anything_from_elsewhere(pages, site):
    for page, parsed in pages.items():
        assert not [link for link in parsed.loads if urlsplit(link).netloc], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet.name


@functools.cache
def options():
    """Return the options of every command, by its name; of a group, None."""
    with main.make_context("edgeproof", ["verify"], resilient_parsing=True) as context:
        commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {
        name: None if isinstance(command, click.Group) else {o for p in command.params for o in p.opts if o[0] == "-"}
        for name, command in commands.items()
    }


def test_every_command_and_option_is_in_the_reference(site):
    text = (site / "reference" / "commands.html").read_text()
    for name, known in options().items():
        assert f"edgeproof {name}" in text
        assert not {option for option in known or () if option not in text}, name


def shown_commands(page):
    """Yield the words of every `edgeproof ...` in a block of code."""
    blocks = re.findall(r"^```.*?\n(.*?)^```|^((?:    .*\n)+)", page.read_text(), re.MULTILINE | re.DOTALL)
    for block in ("".join(pair).replace("\\\n", " ") for pair in blocks):
        for line in re.findall(r"^ *(?:\S*bin/)?edgeproof +([a-z].*)$", block, re.MULTILINE):
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_that_a_page_shows_exist_with_their_options(page):
    for name, *words in shown_commands(page):
        assert name in options()
        if (known := options()[name]) is not None:
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert used <= known | {"--help"}, f"edgeproof {name} {shlex.join(words)}"


def test_commands_are_found_in_blocks_of_either_kind(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("edgeproof distils.\n\n    edgeproof a --b  # c\n\n```sh\n.venv/bin/edgeproof d \\\n  --e=1\n```\n")
    assert list(shown_commands(page)) == [["a", "--b"], ["d", "--e=1"]]
