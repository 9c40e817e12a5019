"""Reads a recipe's TOML as one table: its base, then the settings for the chosen method, then overrides (ADR 0009)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Final

from pipeline.methods import METHODS
from pipeline.recipe.source import read_source
from runtime.errors import BadRecipe
from runtime.words import did_you_mean

BASE, FOR = "base", "for"
SOURCES: dict[str, tuple[str, ...] | None] = {"data": ("name", "path", "extra"), "teacher": None}
"""Tables that name a source; a new source drops these keys of the table below (None: all)."""
NETWORK: dict[str, tuple[str, ...]] = {"factory": ("arch", "width", "depth"), "arch": ("factory",)}
"""In [student], the keys that each of these drops from the recipe below."""
USUAL_SCHEDULE: Final = "steps"
"""The learning-rate schedule that has milestones."""
Table = dict[str, Any]


def read_recipe(source: str, overrides: Iterable[str] = ()) -> tuple[Table, str]:
    """Read a recipe of this package by name, or a TOML file by path; return the table, and its name in messages.

    Later entries of this list override earlier ones: the recipe named by `base` with its tables `[for.METHOD...]` for
    the chosen method, the recipe itself, its tables `[for.METHOD...]`, overrides `path.to.key=value`. Another name or
    path in [data] or [teacher] is another source: all settings of the former one are dropped. Epochs and milestones in
    one `[for.METHOD.train]` are a schedule: the milestones scale with the number of epochs.

    Raises:
        BadRecipe: there is no such recipe, it is not TOML, its bases form a cycle, or an override is malformed.

    """
    files, where = _with_bases(source, ())
    asked: Table = {}
    for override in overrides:
        _apply(asked, override)
    method = reduce(_upon, (*(file.table for file in files), asked)).get("method")
    name = str(method.get("name")) if isinstance(method, dict) else ""
    return _laid(files, name, asked), where


@dataclass(frozen=True)
class _File:
    """One file: the settings for every method, and the settings for single methods by method."""

    table: Table
    special: dict[str, Table]


def _laid(files: tuple[_File, ...], method: str, asked: Table) -> Table:
    """Merge the files from the lowest base up, each followed by its settings for the method; `asked` comes last."""
    whole: Table = {}
    schedule: Table | None = None  # the [for.METHOD.train] that the milestones are of
    for file in (*files, _File(asked, {})):
        own = file.special.get(method, {})
        whole = _upon(_upon(whole, file.table), own)
        if "milestones" in _train(own):
            schedule = _train(own) if "epochs" in _train(own) else None
        elif "milestones" in _train(file.table):
            schedule = None
    if schedule is not None and "milestones" in _train(whole):
        of, epochs, milestones = schedule["epochs"], _train(whole).get("epochs"), schedule["milestones"]
        if isinstance(milestones, list) and all(isinstance(value, int | float) for value in (of, epochs, *milestones)):
            whole["train"] = whole["train"] | {"milestones": in_place(milestones, of, epochs)}
    return whole


def _train(table: Table) -> Table:
    train = table.get("train")
    return train if isinstance(train, dict) else {}


def in_place(milestones: Iterable[float], of: float, epochs: Any) -> list[float]:
    """Return the milestones of a schedule of `of` epochs, scaled to a run of `epochs`."""
    return [milestone * epochs / of if of else milestone for milestone in milestones]


def _with_bases(source: str, above: tuple[str, ...]) -> tuple[tuple[_File, ...], str]:
    """Return a recipe's files, the lowest base first, and the name of the recipe in messages."""
    if source in above:
        raise BadRecipe(f"{source} is its own {BASE}: {' -> '.join((*above, source))}")
    where = source if source.endswith(".toml") else f"recipe {source}"
    try:
        table = tomllib.loads(read_source(source, "recipe"))
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{where}: {error}") from None
    base, special = table.pop(BASE, None), table.pop(FOR, {})
    if not isinstance(special, dict) or not all(isinstance(changes, dict) for changes in special.values()):
        raise BadRecipe(f"{where}: {FOR} must hold one table per method", hint="for example [for.adaad.train]")
    if strange := sorted(set(special) - set(METHODS)):
        raise BadRecipe(
            f"{where}: {FOR}.{strange[0]}: there is no such method{did_you_mean(strange[0], METHODS)}",
            hint=f"known: {', '.join(METHODS)}",
        )
    file = _File(table, special)
    if base is None:
        return (file,), where
    if not isinstance(base, str):
        raise BadRecipe(f"{where}: {BASE} is {base!r}", hint="give the name of a recipe, or a path that ends in .toml")
    beneath = str((Path(source).parent / base).resolve()) if base.endswith(".toml") else base
    return (*_with_bases(beneath, (*above, source))[0], file), where


def _upon(beneath: Table, above: Table) -> Table:
    """Merge two recipes. If `above` names another source, `beneath` loses its settings for the former source.

    Likewise, `beneath` loses its milestones if `above` names another schedule, and its network if `above` names another
    kind of network.
    """
    for table, keys in SOURCES.items():
        old, new = beneath.get(table), above.get(table)
        if isinstance(old, dict) and isinstance(new, dict) and not {"name", "path"}.isdisjoint(new):
            beneath = beneath | {table: {key: old[key] for key in old if keys and key not in keys}}
    student, asked = (each["student"] if isinstance(each.get("student"), dict) else {} for each in (beneath, above))
    gone = {key for said in NETWORK if said in asked for key in NETWORK[said]}
    if not gone.isdisjoint(student):
        beneath = beneath | {"student": {key: value for key, value in student.items() if key not in gone}}
    schedule = _train(beneath).get("schedule", USUAL_SCHEDULE)
    if _train(above).get("schedule", schedule) != schedule:
        beneath = beneath | {"train": {key: value for key, value in _train(beneath).items() if key != "milestones"}}
    return _merged(beneath, above)


def _merged(beneath: Table, above: Table) -> Table:
    """Merge two tables key by key; lists and values are replaced as a whole."""
    both = dict(beneath)
    for key, value in above.items():
        under = both.get(key)
        both[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return both


def assignment(override: str) -> tuple[list[str], str] | None:
    """Return the keys and the text of the value in an override `path.to.key=value`; None if it is not of that form."""
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    return (keys, text.strip()) if equals and all(keys) else None


def _apply(table: Table, override: str) -> None:
    assigned = assignment(override)
    if assigned is None:
        raise BadRecipe(f"--set {override!r} is not of the form path.to.key=value")
    (*parents, key), text = assigned
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise BadRecipe(f"--set {override!r}: {parent} is a value, not a table")
    try:
        table[key] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[key] = text
