"""Options of a click command from the fields of records: see `runtime.records.options`."""

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
    """Give a click command the options of records; it gets each record by the name of its keyword.

    What the command line is silent about is not set in the record: its default is the field's.
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
    """One of some names; what is none of them is refused with the closest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(error.message.rstrip(".") + did_you_mean(value, map(str, self.choices)), param, ctx)


def _choice(annotation: Any) -> OneOf | None:
    """Return what a Literal, or one that may be None, can be."""
    literals = (kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal)
    return next((OneOf(get_args(kind)) for kind in literals), None)


def reader(kind: Any, expects: str = "", unit: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a click callback that reads a text as a type of pydantic's does; what it cannot read is a usage error.

    Args:
        kind: the type, with its constraints.
        expects: what it must be, in words; by default as a validator of its own says it.
        unit: what a value above 1 most likely lacks.

    """

    @cache  # made when something is asked: --help reads nothing
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
    """Return a question where a number above 1 lacks its unit; else nothing."""
    above = unit and isinstance(value, str) and value.replace(".", "", 1).isdecimal() and float(value) > 1
    return f"; did you mean {value}{unit}?" if above else ""


def _read(field: FieldInfo, option: Option) -> Callable[[click.Context, click.Parameter, Any], Any]:
    kind = getitem(Annotated, (field.annotation, *field.metadata))  # as Python 3.10 has it
    read = reader(kind, option.expects, option.unit)
    return lambda ctx, param, value: field.default if value is None else read(ctx, param, value)


class NewDirectory(click.Path):
    """A directory to be made; an empty name is a usage error, not the directory one stands in."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("the name of the directory is empty", param, ctx)
        return super().convert(value, param, ctx)
