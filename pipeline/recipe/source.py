"""Finds the TOML of a recipe or study: a file of the user, or a name in this package."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from runtime.errors import BadRecipe, UsageFault
from runtime.words import did_you_mean

FOLDERS = {"recipe": "recipes", "study": "studies"}


class NotThere(BadRecipe):
    """There is no such file, and this package has no recipe or study of that name."""


def names_of(kind: str) -> list[str]:
    """Return the names of the recipes or studies (a key of FOLDERS) that ship with the package."""
    entries = resources.files("pipeline").joinpath(FOLDERS[kind]).iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))


def read_source(source: str, kind: str) -> str:
    """Return the TOML of a recipe or study. `source` is a path that ends in .toml, or a name.

    Raises:
        NotThere: there is no such file or name.
        BadRecipe: it is not text.

    """
    path = Path(source)
    is_path = path.suffix == ".toml"
    try:
        if is_path:
            return path.read_text()
        return resources.files("pipeline").joinpath(FOLDERS[kind], f"{source}.toml").read_text()
    except UnicodeDecodeError as error:
        raise BadRecipe(f"{source}: {error}") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        names = names_of(kind)
        known = ", ".join(names)
        if is_path:
            state = "is a directory" if path.is_dir() else "does not exist"
            raise NotThere(f"{source} {state}", hint=f"give the path of a {kind}, or one of: {known}") from None
        raise NotThere(
            f"there is no {kind} named {source!r}{did_you_mean(source, names)}",
            hint=f"give a path that ends in .toml, or one of: {known}",
        ) from None


def checked(kind: str) -> Callable[[Any, Any, str], str]:
    """Return the callback of a command-line argument. It raises `UsageFault` if there is no such file or name."""

    def check(_ctx: Any, _param: Any, source: str) -> str:
        try:
            read_source(source, kind)
        except NotThere as error:
            raise UsageFault(error.message, hint=error.hint) from None
        return source

    return check
