"""Draws the rooms from the code: `make rooms` writes docs/rooms.svg, for light and dark pages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import wrap

from tools.layout import Layout, Node, lay_out
from tools.rooms import PACKAGES, ROOT, Package, Room, read

PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, MARGIN, FLOOR, GROUND = 1000, 18, 84, 44
BOX, BOX_HEIGHT, POINT = 132, 46, 16
HALF, WHOLE = (WIDTH - 3 * MARGIN) / 2, WIDTH - 2 * MARGIN
PORT = 18.0
"""The largest distance between two arrows at the edge of a box."""
LONGEST = 1700
"""Lines of code at which the bar of a room is full: no room should have more."""
SAYS = {
    "pipeline": "data, networks, methods, training, with PyTorch",
    "export": "ONNX in, ONNX out: gradients, precisions, bundles",
    "runtime": "attacks, verdict and report on the device, without PyTorch and onnx",
}
STYLE = """
  .box { stroke-width: 1.2 } .loose { stroke-dasharray: 4 3 } .arrow { fill: none; stroke-width: 1.4 }
  .between { fill: none; stroke-width: 3 } text { font-size: 14px } .small { font-size: 11.5px }
  .name { font-weight: 600; font-size: 18px } .middle { text-anchor: middle }
"""
COLOURS = """
  .page {{ fill: {} }} .panel {{ fill: {} }} .floor {{ stroke: {} }} .rail {{ fill: {} }} .chip {{ fill: {} }}
  .box {{ fill: {}; stroke: {} }} text {{ fill: {} }} .small {{ fill: {} }}
  .arrow {{ stroke: {} }} .head {{ fill: {} }} .bar, .tip {{ fill: {} }} .between {{ stroke: {} }}
"""
LIGHT = COLOURS.format(
    *("#fbfbfd", "#f1f3f7", "#dfe4ec", "#e4e8ef", "#e2e7ef"),
    *("#ffffff", "#b9c2cf", "#1c1e21", "#555c68"),
    *("#6b87b3", "#6b87b3", "#3b7dd8", "#3b7dd8"),
)
DARK = COLOURS.format(
    *("#14161a", "#1d2127", "#2d333d", "#363d49", "#2a303a"),
    *("#272c35", "#4a5362", "#e8eaee", "#a9b1be"),
    *("#7f9cca", "#7f9cca", "#6aa2f0", "#6aa2f0"),
)
CAPTION = (
    "An arrow: imports of. Arrows that follow from others are left out, and so are those to the ground, on "
    "which all rooms of a package stand.",
    "A dashed box is one file. Rooms on one floor import nothing of one another. A bar is full at 1,700 lines. "
    "`make rooms` draws this from the code.",
)


@dataclass(frozen=True)
class Panel:
    """One package and where it is drawn, in points from the upper left."""

    package: Package
    left: float
    width: float
    top: float = 0
    height: float = 0

    @property
    def header(self) -> list[str]:
        """The lines of text that say which rooms of other packages this package imports."""
        lines = []
        for other, names in self.package.uses.items():
            ground = read(other).ground
            rooms = ", ".join(name for name in names if name not in ground)
            rooms += ", the ground" if set(names) & set(ground) else ""
            lines += wrap(f"of {other}: {rooms}", int(self.width / 6.3))
        return lines

    @property
    def first_floor(self) -> float:
        """Where the boxes of the uppermost floor begin."""
        return self.top + 50 + 16 * len(self.header)

    @property
    def least_height(self) -> float:
        """The height that the panel needs at least."""
        return self.first_floor - self.top + FLOOR * len(self.package.floors) - 20 + self.ground_height

    @property
    def ground_height(self) -> float:
        """The height of the ground at the foot of the panel."""
        return GROUND if self.package.ground else 0

    @property
    def floor(self) -> float:
        """The distance from one floor to the next."""
        return (self.top + self.height + 20 - self.ground_height - self.first_floor) / len(self.package.floors)


def draw() -> str:
    """Return the picture as SVG."""
    pipeline, export, runtime = map(read, PACKAGES)
    upper = [Panel(pipeline, MARGIN, HALF), Panel(export, 2 * MARGIN + HALF, HALF)]
    top, tall = MARGIN + 44, max(panel.least_height for panel in upper)
    upper = [replace(panel, top=top, height=tall) for panel in upper]
    below = top + tall + 34
    lower = Panel(runtime, MARGIN, WHOLE)
    lower = replace(lower, top=below, height=lower.least_height)
    foot = lower.top + lower.height
    bottom = foot + 52
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom:g}" role="img" aria-labelledby="title" '
        "font-family=\"system-ui, 'DejaVu Sans', sans-serif\">",
        '<title id="title">The rooms of pipeline, export and runtime, by floors, and which imports of which</title>',
        f"<style>{STYLE}{LIGHT}  @media (prefers-color-scheme: dark) {{{DARK}  }}\n</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker>',
        f'<rect class="page" width="{WIDTH}" height="{bottom:g}" rx="10"/>',
        *_door(),
        *(line for panel in (*upper, lower) for line in _panel(panel)),
        *_between(top + tall, below),
        *(_text(MARGIN, foot + 20 + 18 * number, line, "small") for number, line in enumerate(CAPTION)),
        "</svg>\n",
    ])  # fmt: skip


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {where} rx="{radius:g}"/>'


def _door() -> Iterator[str]:
    yield _rect("chip", MARGIN, MARGIN, WHOLE, 30, 6)
    says = '<tspan class="small" dx="10">the door: every command comes in here, and finds the rooms below</tspan>'
    yield _text(WIDTH / 2, MARGIN + 20, f'<tspan font-weight="600">edgeproof</tspan>{says}', "middle")


def _between(above: float, below: float) -> Iterator[str]:
    """Yield the arrows from package to package."""
    for x in (MARGIN + HALF / 2, 2 * MARGIN + 1.5 * HALF):
        yield f'<path class="between" d="M{x:g} {above + 4:g}V{below - 13:g}"/>'
        yield f'<path class="tip" d="M{x - 7:g} {below - 14:g}h14l-7 11z"/>'
    x, y = MARGIN + HALF, above / 2
    yield f'<path class="between" d="M{x:g} {y:g}h{MARGIN - 8}"/>'
    yield f'<path class="tip" d="M{x + MARGIN - 10:g} {y - 7:g}v14l10 -7z"/>'


def _panel(panel: Panel) -> Iterator[str]:
    package, left, middle = panel.package, panel.left + 16, panel.left + panel.width / 2
    yield _rect("panel", panel.left, panel.top, panel.width, panel.height, 10)
    says = f'<tspan class="small" dx="10">{SAYS[package.name]}</tspan>'
    yield _text(left, panel.top + 27, f'<tspan class="name">{package.name}</tspan>{says}')
    for number, line in enumerate(panel.header):
        yield _text(left, panel.top + 46 + 16 * number, line, "small")
    for number in range(1, len(package.floors)):
        edge = panel.first_floor + panel.floor * number - (panel.floor - BOX_HEIGHT) / 2
        yield f'<path class="floor" d="M{panel.left + 12:g} {edge:.1f}h{panel.width - 24:g}"/>'
    space = 10 if panel.width < WHOLE else 44
    layout = lay_out(package.floors, package.imports, box=BOX + space, point=POINT + space / 3, width=panel.width - 12)
    x = {node: middle + at for node, at in layout.x.items()}
    y = {node: panel.first_floor + panel.floor * number for number, row in enumerate(layout.rows) for node in row}
    yield from _arrows(layout, x, y)
    for name in (name for floor in package.floors for name in floor):
        yield from _box(name, package.rooms[name], x[name], y[name])
    if package.ground:
        yield from _ground(panel, middle)


def _arrows(layout: Layout, x: Mapping[Node, float], y: Mapping[Node, float]) -> Iterator[str]:
    """Yield the arrows: each leads from the lower edge of its room, along its points, to the upper edge of another."""
    for (start, end), way in layout.ways.items():
        xs = [x[node] for node in way]
        xs[0] += _port(layout, (start, end), 0)
        xs[-1] += _port(layout, (start, end), 1)
        path = f"M{xs[0]:.1f} {y[start] + BOX_HEIGHT:.1f}"
        for (one, other), (x0, x1) in zip(pairwise(way), pairwise(xs), strict=True):
            above, below = y[one] + BOX_HEIGHT, y[other] - (2 if other == end else 0)
            half = (above + below) / 2
            path += f"C{x0:.1f} {half:.1f} {x1:.1f} {half:.1f} {x1:.1f} {below:.1f}"
            path += "" if other == end else f"v{BOX_HEIGHT}"
        yield f'<path class="arrow" marker-end="url(#head)" d="{path}"/>'


def _port(layout: Layout, edge: tuple[str, str], side: int) -> float:
    """Return the distance of an arrow from the middle of the room that it leaves (side 0) or enters (side 1).

    Arrows are ordered by their other ends, so that none cross at the box.
    """
    near = {
        key: layout.x[way[1] if side == 0 else way[-2]] for key, way in layout.ways.items() if key[side] == edge[side]
    }
    order = sorted(near, key=lambda key: (near[key], key))
    return min(PORT, (BOX - 24) / len(order)) * (order.index(edge) - (len(order) - 1) / 2)


def _box(name: str, room: Room, x: float, y: float) -> Iterator[str]:
    left, files = x - BOX / 2, "" if room.loose else f"{room.files} files · "
    yield _rect("box loose" if room.loose else "box", left, y, BOX, BOX_HEIGHT, 6)
    yield _text(x, y + 18, name, "middle")
    yield _text(x, y + 33, f"{files}{room.lines:,} lines", "small middle")
    yield _rect("rail", left + 8, y + 39, BOX - 16, 3, 1.5)
    yield _rect("bar", left + 8, y + 39, min(1.0, room.lines / LONGEST) * (BOX - 16), 3, 1.5)


def _ground(panel: Panel, middle: float) -> Iterator[str]:
    y = panel.top + panel.height - GROUND
    yield _rect("chip", panel.left + 12, y, panel.width - 24, GROUND - 12, 6)
    names = "".join(
        f'<tspan dx="16">{name}</tspan><tspan class="small" dx="4">{panel.package.rooms[name].lines}</tspan>'
        for name in panel.package.ground
    )
    yield _text(middle, y + 21, f'<tspan class="small">the ground, in lines</tspan>{names}', "middle")


if __name__ == "__main__":
    PICTURE.write_text(draw())
