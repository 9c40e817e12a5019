"""Record fields as command-line options: their names and how their values are written; and those that run.json records.

A record of such fields is the only definition of its options. The command line, the defaults and the recorded command
follow from it (`runtime.options.record`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import click
from pydantic import Field

from runtime.spec import Frozen, ShardField

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

AUTO: Final = "auto"
"""Requests the batch size that suits the device. A run records the resulting number."""
BatchSize = Annotated[int, Field(gt=0)] | Literal["auto"]


@dataclass(frozen=True)
class Option:
    """The command-line option of a field; part of the field's Annotated metadata.

    Args:
        help: the help text.
        flag: the option's name; by default that of the field.
        type: click's type; None for a flag or a Literal, and if the field parses the text itself.
        expects: what a value must be, in words, if the field's own message is worse.
        unit: the unit that a value above 1 most likely lacks, such as % in 45.
        write: turns a value back into text.
        always: whether a recorded command includes it even at its default, which another version may change.
        envvar: the environment variable that sets it if the command line does not.

    """

    help: str
    flag: str = ""
    type: Any = None
    expects: str = ""
    unit: str = ""
    write: Callable[[Any], str] = str
    always: bool = False
    envvar: str | None = None


def option_of(field: FieldInfo) -> Option:
    """Return the option of a field."""
    return next(each for each in field.metadata if isinstance(each, Option))


def flag_of(record: type[Frozen], name: str) -> str:
    """Return the flag of a record's field."""
    return option_of(record.model_fields[name]).flag or f"--{name.replace('_', '-')}"


def command_words(record: Frozen) -> list[str]:
    """Return the words of a command line that gives a record: options stated always, then others, then flags."""
    fields = type(record).model_fields
    options = {name: option_of(field) for name, field in fields.items()}
    values = {name: value for name, value in record if value is not None}
    asked = [name for name, value in values.items() if options[name].always or value != fields[name].default]
    asked.sort(key=lambda name: (values[name] is True, not options[name].always))
    words: list[str] = []
    for name in asked:
        words.append(flag_of(type(record), name))
        words += [] if values[name] is True else [options[name].write(values[name])]
    return words


def without_option(command: str, record: type[Frozen], name: str) -> str:
    """Return a recorded command without the option of one field, which takes a value."""
    words, flag = shlex.split(command), flag_of(record, name)
    if flag not in words:
        return command
    at = words.index(flag)
    return shlex.join([*words[:at], *words[at + 2 :]])


class BatchRange(click.IntRange):
    """A positive number of images, or AUTO."""

    name = f"number of images, nor {AUTO}"

    def get_metavar(self, *given: Any, **named: Any) -> str:
        """Return the value's form for the help. Click 8.1 passes fewer arguments than 8.2."""
        return f"[N|{AUTO}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or AUTO."""
        return value if value == AUTO else super().convert(value, param, ctx)


class RecordedOptions(Frozen):
    """Options of a run that need no resolving, so that run.json records them unchanged."""

    seed: Annotated[
        int,
        Field(ge=0, lt=2**64),
        Option("Seed of the attacks' noise.", type=click.IntRange(0, 2**64 - 1), always=True),
    ] = 0
    batch: Annotated[
        BatchSize,
        Option(
            "Images in one pass; on a CPU no figure depends on it. 'auto' chooses it for the device.",
            type=BatchRange(min=1),
            always=True,
        ),
    ] = AUTO
    lattice: Annotated[
        Literal["uint8"] | None,
        Option("Also judge each adversarial image after rounding to bytes. The report shows this beside the score."),
    ] = None
    until_decided: Annotated[bool, Option("Take the images in random order and stop when the gate is decided.")] = False
    shard: Annotated[ShardField | None, Option("Judge one part of the images, as 2/5; merge judges all.")] = None
    accept_blind_evidence: Annotated[
        bool, Option("Let attacks without gradients decide a gate. The report still calls their evidence weak.")
    ] = False
    save_adversarial: Annotated[bool, Option("Keep the worst points in evidence.npz.")] = False
