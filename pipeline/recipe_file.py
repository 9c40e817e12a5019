"""A recipe's TOML as one table: its base beneath, what holds for the chosen method, overrides on top (ADR 0009)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.methods import METHODS
from runtime.errors import BadRecipe

BASE, FOR = "base", "for"
SOURCES: dict[str, tuple[str, ...] | None] = {"data": ("name", "path"), "teacher": None}
"""Tables that say, by name or path, where something comes from; the keys that go when that is said anew (None: all)."""
Table = dict[str, Any]


def read_recipe(source: str, overrides: Iterable[str] = ()) -> tuple[Table, str]:
    """Read a recipe of this package by name, or a TOML file by path; return the table, and what to call it in messages.

    What stands further down this list holds where both say something: the recipe named by `base`, the recipe itself,
    its tables `[for.METHOD...]` of the chosen method, overrides `path.to.key=value`. Another name or path in [data] or
    [teacher] is another source: nothing that was said of the former one holds any longer.

    Raises:
        BadRecipe: no such recipe, not TOML, a base in a circle, an override that is none.

    """
    table, where = _with_bases(source, ())
    special = table.pop(FOR, {})
    if not isinstance(special, dict) or not all(isinstance(changes, dict) for changes in special.values()):
        raise BadRecipe(f"{where}: {FOR}: not a table for each method", hint="as [for.adaad.train]")
    if strange := sorted(set(special) - set(METHODS)):
        raise BadRecipe(f"{where}: {FOR}.{strange[0]}: no such method", hint=f"known: {', '.join(METHODS)}")
    asked: Table = {}
    for override in overrides:
        _apply(asked, override)
    method = _upon(table, asked).get("method")
    name = method.get("name") if isinstance(method, dict) else None
    return _upon(_upon(table, special.get(str(name), {})), asked), where


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = resources.files("pipeline").joinpath("recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _with_bases(source: str, above: tuple[str, ...]) -> tuple[Table, str]:
    if source in above:
        raise BadRecipe(f"{source} is its own {BASE}: {' -> '.join((*above, source))}")
    text, where = _read(source)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{where}: {error}") from None
    base = table.pop(BASE, None)
    if base is None:
        return table, where
    if not isinstance(base, str):
        raise BadRecipe(f"{where}: {BASE} is {base!r}", hint="the name of a recipe, or a path that ends in .toml")
    beneath = str((Path(source).parent / base).resolve()) if base.endswith(".toml") else base
    return _upon(_with_bases(beneath, (*above, source))[0], table), where


def _read(source: str) -> tuple[str, str]:
    path = Path(source)
    packaged = resources.files("pipeline").joinpath("recipes", f"{source}.toml")
    try:
        if path.suffix == ".toml":
            return path.read_text(), str(path)
        return packaged.read_text(), f"recipe {source}"
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadRecipe(
            f"no recipe {source!r}", hint=f"a path that ends in .toml, or one of: {', '.join(recipe_names())}"
        ) from None
    except UnicodeDecodeError as error:
        raise BadRecipe(f"{source}: {error}") from None


def _upon(beneath: Table, above: Table) -> Table:
    """Return two recipes in one: where `above` names another source, what `beneath` says of its own is gone."""
    for table, keys in SOURCES.items():
        old, new = beneath.get(table), above.get(table)
        if isinstance(old, dict) and isinstance(new, dict) and not {"name", "path"}.isdisjoint(new):
            beneath = beneath | {table: {key: old[key] for key in old if keys and key not in keys}}
    return _merged(beneath, above)


def _merged(beneath: Table, above: Table) -> Table:
    """Return both tables in one, key by key; lists and values are replaced whole."""
    both = dict(beneath)
    for key, value in above.items():
        under = both.get(key)
        both[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return both


def _apply(table: Table, override: str) -> None:
    path, equals, text = override.partition("=")
    *parents, key = path.strip().split(".")
    if not equals or not key:
        raise BadRecipe(f"--set {override!r} is not of the form path.to.key=value")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise BadRecipe(f"--set {override!r}: {parent} is a value, not a table")
    try:
        table[key] = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        table[key] = text.strip()
