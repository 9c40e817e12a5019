"""Checks the arguments of a call from Python as the command line does, and makes errors name these arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from pydantic import ValidationError

from runtime.errors import EdgeproofError, UsageFault
from runtime.spec import Frozen, fault_words
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

P = ParamSpec("P")
R = TypeVar("R")
Record = TypeVar("Record", bound=Frozen)
OPTION = re.compile(r"--([a-z][a-z-]*)(?: (\d[\d./]*)| [A-Z]{2,}\b)?")
"""An option of the command line in a message, with its value if that is a number; a placeholder is dropped."""


def names_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Make the errors of a function name its arguments instead of options and files: fail_under for --fail-under.

    A call that does not fit the signature raises a UsageFault, which names the argument that was probably meant.
    """
    taken = signature(function)
    known = taken.parameters

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
            taken.bind(*args, **kwargs)
        except TypeError as error:
            meant = "".join(did_you_mean(name, known) for name in kwargs if name not in known)
            raise UsageFault(
                f"{function.__name__}: {error}{meant}", hint=f"{function.__name__}({_in_short(taken)})"
            ) from None
        try:
            return function(*args, **kwargs)
        except EdgeproofError as error:
            error.message = in_python(error.message)
            error.args = (error.message,)
            error.hint = error.hint and in_python(error.hint)
            raise

    return called


def _in_short(taken: Signature) -> str:
    """Return the parameters that may be given by position, and the names of the others: model, x, y, eps=..., n=..."""
    return ", ".join(
        f"{name}=..." if each.kind is Parameter.KEYWORD_ONLY else name for name, each in taken.parameters.items()
    )


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


def run_directory(path: str | PathLike[str]) -> Path:
    """Return the directory that `against` names.

    Raises:
        UsageFault: it does not exist, or is no directory.

    """
    if not existing(path, "against").is_dir():
        raise UsageFault(f"against: {path} is not a directory", hint="give the out of a verify that has finished")
    return Path(path)


def names(classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of classes as a tuple; None is no names.

    Raises:
        UsageFault: `classes` is no list of texts.

    """
    if classes is None:
        return ()
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise UsageFault(f"classes is {classes!r}, no list of names", hint="give a list of names, as ['cat', 'dog']")
    for name in (given := tuple(classes)):
        if not isinstance(name, str):
            raise UsageFault(f"classes has {name!r}, which is no text", hint="give a list of names, as ['cat', 'dog']")
    return tuple(map(str, given))  # numpy's texts are of a class of their own


def each_channel(numbers: float | Sequence[float], argument: str) -> tuple[float, ...] | None:
    """Return one number for all channels, or one per channel; None if there are none.

    Raises:
        UsageFault: `numbers`, which `argument` names, are no numbers.

    """
    try:
        array = np.ravel(np.asarray(numbers))
        if array.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError, RuntimeError):  # ragged lists; tensors of a GPU
        raise UsageFault(
            f"{argument} is {numbers!r}, no numbers",
            hint=f"{argument}=0.5, or one number per channel: {argument}=[...]",
        ) from None
    return tuple(map(float, array)) or None


PHRASES = {
    "images has ": "x has ",
    "images: image ": "x, y: image ",
    ": one name a line, in the order of its logits": ", in the order of its logits",
    "--layout is for an .npz, --size resizes pictures": "resize the images before",
    "every image of calibration is in the evaluation set": "calibration: every image is in evaluation too",
    "; --size does it for the pictures of a folder": "",
    "remove it, name another --out, or go on with --resume": "remove it, or give another directory as out",
    "remove it, or name another": "remove it, or give another directory as out",
    "N,H,W,C with --layout nhwc": "N,H,W,C with layout='nhwc'",
    "give --layout nchw or nhwc": "give layout='nchw' or layout='nhwc'",
    "are for a model file; a bundle holds its own": "belong to an ONNX file; a bundle or a network holds its own",
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
