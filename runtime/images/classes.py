"""Names of classes, their order, and their numbers in a model."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import BadImages, UsageFault
from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

WITHIN = re.compile(r"(^-?[0-9]+|[0-9]+)")
LISTED = 8
"""The most names that a message lists."""


def numbers(count: int) -> tuple[str, ...]:
    """Return the names of classes without names: 0, 1, 2, ..."""
    return tuple(map(str, range(count)))


def read_classes(asked: str) -> tuple[str, ...]:
    """Return the names of --classes: from a file with one name per line, or from a list with commas.

    Raises:
        UsageFault: it is neither an existing file nor a list.
        BadData: the file is not text, a name is empty, or two names are equal.

    """
    path = Path(asked)
    if path.is_file():
        try:
            names = [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadImages(
                f"--classes {path} cannot be read as text: {error}", hint="write one name a line, in UTF-8"
            ) from None
    elif "," in asked:
        names = [name.strip() for name in asked.split(",")]
    else:
        raise UsageFault(
            f"--classes {asked}: no such file", hint="give a file with one name a line, or a list as ant,bee,cat"
        )
    if "" in names:
        raise BadImages(
            f"--classes {asked}: class {names.index('')} has no name",
            hint="write one name a line, in the order of the logits",
        )
    refuse_duplicates(names, f"--classes {asked}")
    return tuple(names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names sorted as numbers if all are numbers, or else by name.

    Raises:
        BadData: two names are the same number, such as 1 and 01.

    """
    names = sorted(names)
    if not all(map(_is_number, names)):
        return tuple(names)
    names.sort(key=lambda name: (len(_key(name)), _key(name)))
    for one, other in pairwise(names):
        if _key(one) == _key(other):
            raise BadImages(
                f"the classes {one} and {other} are the same number", hint="merge the folders, or rename one"
            )
    return tuple(names)


def order_in_words(names: Sequence[str]) -> str:
    """Return the classes in words, with the kind of order that `in_order` chose."""
    if names and all(map(_is_number, names)):
        return f"classes: {names[0]} ... {names[-1]}, in the order of numbers"
    return f"classes: {listed(names)}, in the order of names"


def listed(names: Sequence[str]) -> str:
    """Return names as a list for a message, with at most LISTED of them."""
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def refuse_duplicates(names: Sequence[str], where: str) -> None:
    """Raise `BadData` if two classes have the same name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise BadImages(f"{where}: two classes are called {twice}", hint="give every class a name of its own")


def refuse_another_count(where: str, names: Sequence[str], count: int) -> None:
    """Raise `BadData` unless there are as many classes as the model has logits."""
    if len(names) != count:
        raise BadImages(
            f"{where} has {len(names)} classes ({listed(names)}), but the model has {count} logits",
            hint="list the model's classes by --classes FILE: one name a line, in the order of its logits",
        )


def class_numbers(where: str, names: Sequence[str], classes: Sequence[str]) -> Array:
    """Return, for each class of an image set, its number among a model's classes.

    If the model's classes have names, a class gets the number of its name; numbers are compared as numbers, and words
    without regard to case. If the model knows none of the names, or its classes are mere numbers, a class keeps its
    own number, provided that both have equally many classes.

    Args:
        where: the set, for messages.
        names: the set's classes, in its order.
        classes: the model's classes, in the order of its logits.

    Returns:
        int [len(names)].

    Raises:
        BadData: the model knows only some of the names; or it knows none, and the numbers of classes differ or the
            order of the names is ambiguous.

    """
    if tuple(classes) != numbers(len(classes)):
        refuse_duplicates(classes, "the model")
        ours, theirs = _comparable(names, classes)
        strange = [name for name, key in zip(names, ours, strict=True) if key not in theirs]
        if not strange:
            return _numbers([theirs.index(key) for key in ours])
        if len(strange) < len(names):
            raise BadImages(
                f"{where}: no class of the model is called {listed(strange)}",
                hint=f"name the folders after the classes ({listed(classes)}), or give an .npz",
            )
    refuse_another_count(where, names, len(classes))
    refuse_two_orders(where, names)
    if numbers(len(classes)) not in (tuple(names), tuple(classes)):
        pairs = [f"{name} = {meant}" for name, meant in zip(names, classes, strict=True)]
        log.warning(f"{where}: the model knows none of the names, so they are taken in their order: {listed(pairs)}")
    return _numbers(range(len(names)))


def _numbers(values: Iterable[int]) -> Array:
    import numpy as np

    return np.asarray([*values])


def refuse_two_orders(where: str, names: Sequence[str]) -> None:
    """Raise `BadData` if sorting by name and by the numbers in names differ, as for class10 and class2, or -1 and -2.

    A set that is not sorted by name has an order of its own, and passes.
    """
    if all(map(_is_number, names)) or list(names) != sorted(names):
        return
    if list(names) != sorted(names, key=_natural):
        raise BadImages(
            f"{where}: the order of its classes is ambiguous: by name it is {listed(names)}, by number it is another, "
            "and the model knows none of the names",
            hint="list the model's classes by --classes FILE: one name a line, in the order of its logits",
        )


def _natural(name: str) -> list[tuple[int, int]]:
    """Return a sort key that compares numbers in names as numbers; a number at the start may have a sign."""
    ordered: list[tuple[int, int]] = []
    for part in WITHIN.split(name):
        number = part.removeprefix("-").isdecimal()
        ordered += [(ord("0"), int(part))] if number else [(ord(sign), 0) for sign in part]
    return ordered


def _comparable(*lists: Sequence[str]) -> list[list[str]]:
    """Return keys by which names are compared: `_key` if it tells all names of each list apart, or else the names."""
    keys = [[_key(name) for name in names] for names in lists]
    apart = all(len(set(each)) == len(each) for each in keys)
    return keys if apart else [list(names) for names in lists]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _key(name: str) -> str:
    return (name.lstrip("0") or "0") if _is_number(name) else name.casefold()
