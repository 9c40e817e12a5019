"""The threat model, the gate and how a command line writes them; the types of names, digests and texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from runtime.words import did_you_mean, printable, radius

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Record = TypeVar("Record", bound="Frozen")


class Frozen(BaseModel):
    """A validated, immutable record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    def model_copy(self: Record, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Record:
        """Return a copy with other values, which are validated as in a new record."""
        fields = type(self).model_fields
        values = {**{name: getattr(self, name) for name in self.model_fields_set}, **(update or {})}
        return self.model_validate({fields[name].alias or name: value for name, value in values.items()})


class Grown(Frozen):
    """A record with fields that its first version did not have, `later`. It omits such a field at its default.

    So that version, which refuses unknown keys, can still read a record that does not use the field.
    """

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        silent = [name for name in self.later if getattr(self, name) == type(self).model_fields[name].default]
        return {key: value for key, value in write(self).items() if key not in silent}


IN_WORDS = {"missing": "is missing", "extra_forbidden": "no such key"}
"""Plain words for pydantic's errors about a key."""
OURS = "Value error, "
"""The prefix that pydantic adds to the messages of our own checks."""


def first_fault(error: ValidationError) -> str:
    """Return the first error of a record, such as 'input.height: is missing'. A wrong schema goes before all others.

    A key is text from outside, so control characters in it are replaced.
    """
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((fault for fault in faults if fault["loc"] == ("schema",)), faults[0])
    where = ".".join(map(str, first["loc"])) or "document"
    return printable(f"{where}: {IN_WORDS.get(first['type'], first['msg'].removeprefix(OURS))}")


def fault_words(fault: ErrorDetails) -> str:
    """Return pydantic's message about a value, with the name that was probably meant, if there is one."""
    if fault["type"] == "literal_error":
        return fault["msg"] + did_you_mean(fault["input"], re.findall("'([^']*)'", fault["ctx"]["expected"]))
    return fault["msg"].removeprefix(OURS)


def parse_fraction(value: Any) -> Any:
    """Turn '8/255', '45%', '0.03' or a number into a float; return anything else unchanged."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        numerator, slash, denominator = text.partition("/")
        result = float(numerator) / float(denominator) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        return value
    return result if math.isfinite(result) else value


Fraction = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0, le=1)]
"""A number from 0 to 1, also written as '8/255' or '45%'."""


Drop = Annotated[float, BeforeValidator(parse_fraction), Field(ge=0, lt=1)]
"""The largest drop that a gate allows: a number from 0 to 1, without 1, because a drop of 100 % forbids nothing."""

LONGEST_NAME = 100
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
"""The name of a model or recipe. It is part of file names: no slash, no leading dot, nothing that needs quoting."""
ProviderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=LONGEST_NAME)]
"""The name of a provider, such as cuda or plugin:openvino:gpu. It is part of no file name."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal."""

LONGEST_TEXT = 2**18


def _shown(value: Any) -> Any:
    """Return a JSON value with control characters replaced in every text, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_shown(key): _shown(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    return value


Text = Annotated[str, BeforeValidator(_shown), Field(max_length=LONGEST_TEXT)]
"""A text for people: on one line and without control characters. Code that shows it escapes it."""

Document = Annotated[dict[str, Any], BeforeValidator(_shown)]
"""A JSON object whose layout is not fixed here, such as the card of a machine; its texts are as `Text`."""

Command = Annotated[Text, Field(pattern=r"""^([A-Za-z0-9_@%+=:,./ -]|'[^']*'|"'")*$""")]
"""One command as `shlex.join` writes it: pasted into a shell, it runs nothing else."""


class JudgeCommand(Frozen):
    """A judge in a process of its own (`--judge-command`).

    `command` started it; it reported `name` and `version`. `images` is the type that it reads: for uint8, points are
    rounded before it sees them. `files` has the digest of each word of the command that names a file.
    """

    command: Command
    name: Name
    version: Text
    images: Literal["float32", "uint8"]
    files: dict[Text, Digest]


Precision = Literal["fp32", "fp16", "int8"]
"""The names of a bundle's graphs. What a graph really computes in follows from its bytes (`GraphFacts`)."""

PARENT: Precision = "fp32"
"""The precision with which the others are compared. No drop is measured for itself."""


class ThreatModel(Frozen):
    """The perturbations to which a model must be robust: `eps` in the units of images in [0, 1]."""

    norm: Literal["linf"] = "linf"
    eps: Fraction = 8 / 255

    def __str__(self) -> str:
        """Return it in words: linf, eps 8/255."""
        return f"{self.norm}, eps {radius(self.eps)}"


class Gate(Frozen):
    """What a release must reach, as fractions of all images. None asks for nothing."""

    fail_under: Fraction | None = None
    max_drop: Drop | None = None


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1. It takes every count-th image."""

    number: int
    count: int

    def __str__(self) -> str:
        """Return it as the command line has it."""
        return f"{self.number}/{self.count}"

    def of(self, index: Any) -> Any:
        """Return the elements of `index` that belong to this shard."""
        return index[self.number - 1 :: self.count]

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read '2/5'.

        Raises:
            ValueError: the text is not I/N with 1 <= I <= N.

        """
        match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
        if not match or int(match[1]) > int(match[2]):
            raise ValueError(f"{text!r} is not I/N with 1 <= I <= N, like 2/5")
        return cls(int(match[1]), int(match[2]))


ShardField = Annotated[
    Shard,
    BeforeValidator(lambda value: Shard.parse(value) if isinstance(value, str) else value),
    PlainSerializer(Shard.__str__, return_type=str),
]
"""A shard in a record, written as '2/5'."""


class DataRecord(Frozen):
    """The images on which a figure is measured, or with which a graph is calibrated."""

    name: Text
    n: Annotated[int, Field(gt=0)]
    sha256: Digest


def to_json(record: BaseModel) -> bytes:
    """Return a record as JSON with sorted keys, indented, with one newline at the end. These bytes are hashed."""
    content = record.model_dump(mode="json", by_alias=True)
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
