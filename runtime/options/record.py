"""Makes the options of a click command from the fields of records; see `runtime.records.options`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import TypeAdapter, ValidationError

from runtime.records.options import Option, flag_of, option_of
from runtime.words import did_you_mean

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from runtime.spec import Frozen

Command = TypeVar("Command", bound=Callable[..., Any])


def record_options(**records: type[Frozen]) -> Callable[[Command], Command]:
    """Add the options of records to a click command, which gets each record under its keyword.

    A field whose option is not given stays unset in its record, and so has its default.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_records(**values: Any) -> Any:
            source = click.get_current_context().get_parameter_source
            for keyword, record in records.items():
                asked = {name: values.pop(name) for name in record.model_fields}
                given = {name: asked[name] for name in asked if source(name) is not ParameterSource.DEFAULT}
                values[keyword] = record(**given)
            return command(**values)

        options = [field_option(record, name) for record in records.values() for name in record.model_fields]
        for option in reversed(options):
            with_records = option(with_records)
        return with_records  # type: ignore[return-value]

    return decorate


def field_option(record: type[Frozen], name: str) -> Callable[[Command], Command]:
    """Return the click option of one field."""
    field = record.model_fields[name]
    option, is_flag = option_of(field), field.annotation is bool
    kind = option.type or _choice(field.annotation)
    shown = bool(field.default) or type(field.default) is int
    return click.option(
        flag_of(record, name),
        name,
        type=kind,
        is_flag=is_flag,
        callback=None if is_flag or kind else _read(field, option),
        default=option.write(field.default) if shown else False if is_flag else None,
        show_default=shown,
        envvar=option.envvar,
        show_envvar=option.envvar is not None,
        help=option.help,
    )


class OneOf(click.Choice):  # type: ignore[type-arg]  # click 8.1 takes none
    """One of a list of names. Another name is refused, with the closest one suggested."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(error.message.rstrip(".") + did_you_mean(value, map(str, self.choices)), param, ctx)


def _choice(annotation: Any) -> OneOf | None:
    """Return the choice for a Literal, or for a Literal that may be None; else None."""
    literals = (kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal)
    return next((OneOf(get_args(kind)) for kind in literals), None)


def reader(kind: Any, expects: str = "", unit: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a click callback that parses a text as a pydantic type; a text that does not parse is a usage error.

    Args:
        kind: the type, with its constraints.
        expects: what the value must be, in words; by default the validator's own message.
        unit: the unit that a value of 1 or more most likely lacks.

    """

    @cache  # made on first use: --help needs none
    def adapter() -> TypeAdapter[Any]:
        return TypeAdapter(kind)

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        try:
            return adapter().validate_python(value)
        except ValidationError as error:
            own = error.errors()[0].get("ctx", {}).get("error")
            wrong = f"{value!r} is not {expects}" if expects else str(own)
            raise click.BadParameter(wrong + _meant(value, unit)) from None

    return read


def _meant(value: Any, unit: str) -> str:
    """Return a question with the unit if a number of 1 or more lacks it; else ''."""
    above = unit and isinstance(value, str) and value.replace(".", "", 1).isdecimal() and float(value) >= 1
    return f"; did you mean {value}{unit}?" if above else ""


def _read(field: FieldInfo, option: Option) -> Callable[[click.Context, click.Parameter, Any], Any]:
    kind = getitem(Annotated, (field.annotation, *field.metadata))  # the syntax of Python 3.10
    read = reader(kind, option.expects, option.unit)
    return lambda ctx, param, value: field.default if value is None else read(ctx, param, value)


class NewDirectory(click.Path):
    """A directory to be made. An empty name is a usage error, and does not mean the working directory."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("the name of the directory is empty", param, ctx)
        return super().convert(value, param, ctx)
