"""What a caller from Python gives, checked as the command line checks it; and errors that name its arguments."""

from __future__ import annotations

import re
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import ValidationError

from runtime.errors import EdgeproofError, UsageFault
from runtime.spec import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

P = ParamSpec("P")
R = TypeVar("R")
Record = TypeVar("Record", bound=Frozen)
OPTION = re.compile(r"--([a-z][a-z-]*)(?: (\d[\d./]*)| [A-Z]{2,}\b)?")
"""An option of the command line in a message, and its value where that is a number; what stands for one is left out."""


def names_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let the errors of a function name its arguments where they name options: fail_under for --fail-under."""
    known = signature(function).parameters

    def argument(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        if name not in known:
            return option[0]
        return f"{name}={option[2]}" if option[2] else name

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except EdgeproofError as error:
            error.message = OPTION.sub(argument, error.message)
            error.args = (error.message,)
            error.hint = error.hint and OPTION.sub(argument, error.hint)
            raise

    return called


def filled(record: type[Record], settings: Mapping[str, Any]) -> Record:
    """Return a record of settings; those that are None are left at its own.

    Raises:
        UsageFault: one is unknown, or out of range.

    """
    try:
        return record(**{name: value for name, value in settings.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        above = first["type"] == "less_than_equal" and first.get("ctx", {}).get("le") == 1
        raise UsageFault(
            f"{name} is {first['input']!r}: {first['msg']}", hint=FRACTION.get(name) if above else None
        ) from None


def each_channel(numbers: float | Sequence[float]) -> tuple[float, ...] | None:
    """Return numbers, one for all channels or one each; None where there are none."""
    return (numbers,) if isinstance(numbers, int | float) else tuple(numbers) or None


FRACTION = {"eps": "eps is a radius on images in [0, 1], as 8/255"} | dict.fromkeys(
    ("fail_under", "max_drop", "expect_clean"), "a fraction from 0 to 1, as 0.45"
)
"""What to do about a number above 1, by argument."""
