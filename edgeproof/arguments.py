"""Checks the arguments of a call from Python as the command line does, and makes errors name these arguments."""

from __future__ import annotations

import re
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import ValidationError

from runtime.errors import EdgeproofError, UsageFault
from runtime.spec import Frozen, fault_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

P = ParamSpec("P")
R = TypeVar("R")
Record = TypeVar("Record", bound=Frozen)
OPTION = re.compile(r"--([a-z][a-z-]*)(?: (\d[\d./]*)| [A-Z]{2,}\b)?")
"""An option of the command line in a message, with its value if that is a number; a placeholder is dropped."""


def names_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Make the errors of a function name its arguments instead of options and files: fail_under for --fail-under."""
    known = signature(function).parameters

    def argument(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        if name not in known:
            return option[0]
        return f"{name}={option[2]}" if option[2] else name

    def in_python(words: str) -> str:
        for of_the_command_line, of_python in PHRASES.items():
            words = words.replace(of_the_command_line, of_python)
        return OPTION.sub(argument, words)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except EdgeproofError as error:
            error.message = in_python(error.message)
            error.args = (error.message,)
            error.hint = error.hint and in_python(error.hint)
            raise

    return called


def filled(record: type[Record], settings: Mapping[str, Any]) -> Record:
    """Return a record of settings; settings of None keep the default of the record.

    Raises:
        UsageFault: a setting is unknown, or out of range.

    """
    try:
        return record(**{name: value for name, value in settings.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        above = first["type"] in ("less_than_equal", "less_than") and 1 in first.get("ctx", {}).values()
        raise UsageFault(
            f"{name} is {first['input']!r}: {fault_words(first)}", hint=FRACTION.get(name) if above else FORMS.get(name)
        ) from None


def existing(path: str | PathLike[str], argument: str) -> Path:
    """Return the path that an argument names.

    Raises:
        UsageFault: the path does not exist.

    """
    if not Path(path).exists():
        raise UsageFault(f"{argument}: there is no {path}", hint="give the path of a file or directory that exists")
    return Path(path)


def names(classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of classes as a tuple; None is no names.

    Raises:
        UsageFault: `classes` is a single string.

    """
    if isinstance(classes, str):
        raise UsageFault(f"classes is the text {classes!r}", hint="give a list of names, as ['cat', 'dog']")
    return () if classes is None else tuple(classes)


def each_channel(numbers: float | Sequence[float]) -> tuple[float, ...] | None:
    """Return one number for all channels, or one per channel; None if there are none."""
    return (numbers,) if isinstance(numbers, int | float) else tuple(numbers) or None


PHRASES = {
    "images has ": "x has ",
    "images: image ": "x, y: image ",
    ": one name a line, in the order of its logits": ", in the order of its logits",
    "--layout is for an .npz, --size resizes pictures": "resize the images before",
    "every image of calibration is in the evaluation set": "calibration: every image is in evaluation too",
    "remove it, name another --out, or go on with --resume": "remove it, or give another directory as out",
    "remove it, or name another": "remove it, or give another directory as out",
    "N,H,W,C with --layout nhwc": "N,H,W,C with layout='nhwc'",
    "give --layout nchw or nhwc": "give layout='nchw' or layout='nhwc'",
    "are of a model; a bundle carries its normalisation": "belong to an ONNX file; a bundle or a network holds its own",
}
"""Phrases of errors on the command line, and what replaces them for callers from Python."""
FRACTION = {
    "eps": "eps is a radius on images in [0, 1], as 8/255",
    "fail_under": "a fraction from 0 to 1, as 0.45",
    "expect_clean": "a fraction from 0 to 1, as 0.45",
    "max_drop": "a fraction below 1, as 0.01: a drop of 1 forbids nothing",
}
"""The hint for a number above 1, by argument."""
FORMS = {"name": "use letters, digits, '.', '_' and '-', as my-model", "version": "give a whole number from 1"}
"""The hint that says what an argument must look like, by argument."""
