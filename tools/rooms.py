"""Reads the rooms of the packages: floors from the contracts in pyproject.toml, imports from the modules.

A room is a subpackage, or a module beside the subpackages.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grimp

from tools.layout import without_detours

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "export", "runtime")
"""From top to bottom; each may import those after it."""


@dataclass(frozen=True)
class Room:
    """The size of a room: its files and lines; `loose` if it is a module beside the subpackages."""

    files: int
    lines: int
    loose: bool


@dataclass(frozen=True)
class Package:
    """The part of one package that is drawn.

    Args:
        name: the name of the package.
        floors: the rooms, floor by floor from the top, without the ground.
        ground: the modules of the lowest floors, as far as these consist of loose modules only.
        rooms: all rooms by name.
        imports: pairs of a room and a room below that it imports, without pairs that follow from others.
        uses: the rooms of other packages that this package imports, by package.

    """

    name: str
    floors: tuple[tuple[str, ...], ...]
    ground: tuple[str, ...]
    rooms: dict[str, Room]
    imports: set[tuple[str, str]]
    uses: dict[str, tuple[str, ...]]


@cache
def _imports() -> frozenset[tuple[tuple[str, str], tuple[str, str]]]:
    """Return every import of a room by another, each as (package, room)."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found = {
        (_room_of(one), _room_of(other))
        for one in graph.modules
        for other in graph.find_modules_directly_imported_by(one)
    }
    return frozenset((one, other) for one, other in found if one != other)


def _room_of(module: str) -> tuple[str, str]:
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def _measure(package: str, name: str) -> Room:
    place = ROOT / package / name
    files = list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    return Room(len(files), sum(len(file.read_text().splitlines()) for file in files), loose=not place.is_dir())


def _layers(package: str) -> list[tuple[str, ...]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == [package])
    return [tuple(floor.split(" | ")) for floor in layers]


def read(package: str) -> Package:
    """Return the part of a package that is drawn."""
    floors, ground = _layers(package), list[str]()
    rooms = {name: _measure(package, name) for floor in floors for name in floor}
    while all(rooms[name].loose for name in floors[-1]):
        ground[:0] = floors.pop()
    drawn = {name for floor in floors for name in floor}
    edges = {(one, other) for (p, one), (q, other) in _imports() if p == q == package and {one, other} <= drawn}
    used = {other: {room for (p, _), (q, room) in _imports() if (p, q) == (package, other)} for other in PACKAGES}
    return Package(
        name=package,
        floors=tuple(floors),
        ground=tuple(ground),
        rooms=rooms,
        imports=without_detours(edges),
        uses={
            other: tuple(name for floor in _layers(other) for name in floor if name in used[other])
            for other in PACKAGES
            if other != package and used[other]
        },
    )
