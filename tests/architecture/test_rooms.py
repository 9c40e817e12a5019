"""docs/architecture.md and its picture, held to the code; and the paths that pages name, to the tree."""

import re
import sys
from graphlib import TopologicalSorter

import grimp
import pytest

from tests.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOTS = "runtime|export|pipeline|edgeproof|tests|tools|benchmarks|docker|docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SPARE = 100
"""Lines by which a room may have changed since it was drawn, so that not every change draws the picture again."""
MOST_LOOSE = 12
COUNT = re.compile(r"(?:(\d+) files · )?([\d,]+) lines(?=</text>)|(?<=dx=\"4\">)(\d+)(?=</tspan>)")

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")


def rooms():
    from tools import rooms

    return {package: rooms.read(package) for package in rooms.PACKAGES}


def section(name):
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:][["runtime", "export", "pipeline"].index(name)]


@pytest.mark.parametrize("package", ["runtime", "export", "pipeline"])
def test_the_page_has_every_room_on_its_floor(package):
    text, known = section(package), rooms()[package]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((str(n), name) for n, names in enumerate(known.floors, 1) for name in names)
    assert [name for _, name in rows] == [name for floor in known.floors for name in floor]
    ground = re.search(r"^The ground.*", text, re.MULTILINE)
    assert (re.findall(r"`(\w+)`", ground[0]) if ground else []) == list(known.ground)


@pytest.mark.parametrize("package", ["runtime", "export", "pipeline"])
def test_no_room_is_too_large_and_few_modules_lie_beside_them(package):
    from tools.draw_rooms import LONGEST

    known = rooms()[package].rooms
    assert {name: room.lines for name, room in known.items() if room.lines > LONGEST} == {}
    assert sum(room.loose for room in known.values()) + len(["__init__"]) <= MOST_LOOSE


def without_counts(picture):
    return re.sub(r'<rect class="bar".*?/>', "", COUNT.sub("", picture))


def counts(picture):
    return [int((lines or alone).replace(",", "")) for _, lines, alone in COUNT.findall(picture)]


def test_the_picture_is_what_the_code_draws():
    from tools.draw_rooms import PICTURE, draw

    stored, now = PICTURE.read_text(), draw()
    assert without_counts(stored) == without_counts(now), "run `make rooms`"
    assert len(counts(now)) == sum(len(package.rooms) for package in rooms().values())
    for was, lines in zip(counts(stored), counts(now), strict=True):
        assert abs(was - lines) <= SPARE, "run `make rooms`"


def test_an_arrow_that_follows_from_others_is_left_out_and_no_other():
    from tools.layout import without_detours

    assert without_detours({("a", "b"), ("b", "c"), ("a", "c"), ("a", "d")}) == {("a", "b"), ("b", "c"), ("a", "d")}


def test_boxes_of_a_row_neither_overlap_nor_leave_the_picture():
    from tools.layout import lay_out

    floors = [["a", "b"], ["c"], ["d", "e", "f"]]
    layout = lay_out(floors, {("a", "c"), ("b", "f"), ("c", "d"), ("c", "e")}, box=10, point=4, width=34)
    for row in layout.rows:
        sizes = [10 if isinstance(node, str) else 4 for node in row]
        for left, right, one, other in zip(row, row[1:], sizes, sizes[1:], strict=False):
            assert layout.x[right] - layout.x[left] >= (one + other) / 2 - 1e-9
        assert all(abs(layout.x[node]) + size / 2 <= 17 + 1e-9 for node, size in zip(row, sizes, strict=True))
    assert layout.ways["b", "f"] == ("b", ("b", "f", 1), "f")


def test_no_module_imports_itself_in_a_circle_a_package_and_what_lies_in_it_included():
    from tools import rooms

    graph = grimp.build_graph(*rooms.PACKAGES, cache_dir=None)  # imports for type checking too
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert set(TopologicalSorter(imports).static_order()) == graph.modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page):
    named = re.findall(rf"(?<![\w./~-])(?:{ROOTS})/[\w./*-]*\w", page.read_text())
    assert not [path for path in named if not list(ROOT.glob(path))]
