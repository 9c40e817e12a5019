"""Describes what is wrong with a table of TOML; for an unknown key it lists the known ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from pipeline.methods import METHODS
from runtime.spec import fault_words
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


UNKNOWN_METHOD = "method"
"""The type of the problem that [method] names no method."""


def path(location: Iterable[int | str]) -> str:
    r"""Return the location of a problem as a TOML key: `search."\u0000"`. It cannot control a terminal."""
    return ".".join(part if _bare(part) else json.dumps(part).replace("\x7f", r"\u007f") for part in map(str, location))


def message(problem: ErrorDetails, known: Iterable[str]) -> str:
    """Describe one problem, with the name that was probably meant; `known` are the keys of its table."""
    given, names = problem["input"], tuple(known)
    if problem["type"] == "extra_forbidden":
        return f"no such key; known: {', '.join(names) or 'none'}{did_you_mean(problem['loc'][-1], names)}"
    if problem["type"] == UNKNOWN_METHOD and isinstance(given, Mapping):
        return problem["msg"] + did_you_mean(given.get("name"), METHODS)
    return fault_words(problem)


def keys(model: type[BaseModel], location: tuple[int | str, ...]) -> Iterable[str]:
    """Return the keys of the table that contains a location of pydantic's, starting at `model`."""
    for part in location[:-1]:
        if part in model.model_fields:
            model = next(_records(model.model_fields[str(part)].annotation), model)
    return model.model_fields


def _bare(key: str) -> bool:
    return key.isascii() and key.replace("-", "_").replace("_", "x").isalnum()


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the records in an annotation such as `Table | None` or `dict[str, Table]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _records(inner)
