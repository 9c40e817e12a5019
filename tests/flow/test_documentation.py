"""The documentation as a site: it builds without a warning, and what was built needs nothing but itself."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
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


def test_every_command_and_option_is_in_the_reference(site):
    from runtime.cli import main

    text = (site / "reference" / "commands.html").read_text()
    with main.make_context("edgeproof", ["verify"], resilient_parsing=True) as context:
        for name in main.list_commands(context):
            assert f"edgeproof {name}" in text
            for parameter in main.get_command(context, name).params:
                assert parameter.param_type_name == "argument" or parameter.opts[0] in text
