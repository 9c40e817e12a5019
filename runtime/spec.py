"""What is asked for: threat model, gate, and how they are written on a command line; the types of all texts."""

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
    """A record that is checked, refuses unknown keys and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    def model_copy(self: Record, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Record:
        """Return a copy with other values, which are checked as those of a new record are."""
        fields = type(self).model_fields
        values = {**{name: getattr(self, name) for name in self.model_fields_set}, **(update or {})}
        return self.model_validate({fields[name].alias or name: value for name, value in values.items()})


class Grown(Frozen):
    """A record with fields that its first version did not know, `later`: written only where they say something.

    So a record that has no need of them is read by that version too, which refuses keys that it does not know.
    """

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        silent = [name for name in self.later if getattr(self, name) == type(self).model_fields[name].default]
        return {key: value for key, value in write(self).items() if key not in silent}


IN_WORDS = {"missing": "is missing", "extra_forbidden": "no such key"}
"""What pydantic says of a key, in plain words."""
OURS = "Value error, "
"""What pydantic puts before the words of our own checks."""


def first_fault(error: ValidationError) -> str:
    """Return where and how a record is wrong first, as 'input.height: is missing'; a wrong schema before all.

    A key is text from outside: it is named as it may be shown.
    """
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first = next((fault for fault in faults if fault["loc"] == ("schema",)), faults[0])
    where = ".".join(map(str, first["loc"])) or "document"
    return printable(f"{where}: {IN_WORDS.get(first['type'], first['msg'].removeprefix(OURS))}")


def fault_words(fault: ErrorDetails) -> str:
    """Return what is wrong with a value in pydantic's words, and the name that was meant, perhaps."""
    if fault["type"] == "literal_error":
        return fault["msg"] + did_you_mean(fault["input"], re.findall("'([^']*)'", fault["ctx"]["expected"]))
    return fault["msg"].removeprefix(OURS)


def parse_fraction(value: Any) -> Any:
    """Turn '8/255', '45%', '0.03' or a number into a float; leave what it cannot read as it is."""
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


LONGEST_NAME = 100
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
"""What a model or recipe is called: part of file names, so nothing that climbs, hides or needs quoting."""
ProviderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=LONGEST_NAME)]
"""What a backend runs on, as cuda or plugin:openvino:gpu: part of no file name."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal."""

LONGEST_TEXT = 2**18


def _shown(value: Any) -> Any:
    """Return a value of JSON with every text in it, also the keys, as it may be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {_shown(key): _shown(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    return value


Text = Annotated[str, BeforeValidator(_shown), Field(max_length=LONGEST_TEXT)]
"""What people read: on one line, and no sign in it that acts on a terminal. Whoever shows it escapes it."""

Document = Annotated[dict[str, Any], BeforeValidator(_shown)]
"""What somebody else laid out, such as the card of a machine: any JSON of such texts."""

Command = Annotated[Text, Field(pattern=r"""^([A-Za-z0-9_@%+=:,./ -]|'[^']*'|"'")*$""")]
"""The words of one command as `shlex.join` writes them: who pastes it into a shell runs nothing else."""


class JudgeCommand(Frozen):
    """Who judged in a process of its own (`--judge-command`).

    `command` is what was started; `name` and `version` are what it says of itself. `images` is what it reads: points
    are rounded to uint8 before it sees them. `files` are the digests of the words of the command that name a file.
    """

    command: Command
    name: Name
    version: Text
    images: Literal["float32", "uint8"]
    files: dict[Text, Digest]


Precision = Literal["fp32", "fp16", "int8"]
"""What a graph may be called in a bundle; which one it is, its bytes say (`runtime.session.GraphFacts`)."""

PARENT: Precision = "fp32"
"""The precision that others are compared with: it has nothing to drop from."""


class ThreatModel(Frozen):
    """The perturbations that a model must withstand: `eps` in the units of images in [0, 1]."""

    norm: Literal["linf"] = "linf"
    eps: Fraction = 8 / 255

    def __str__(self) -> str:
        """Return it in words: linf, eps 8/255."""
        return f"{self.norm}, eps {radius(self.eps)}"


class Gate(Frozen):
    """What a release must reach; fractions of all images. None asks for nothing."""

    fail_under: Fraction | None = None
    max_drop: Fraction | None = None


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` parts, from 1: every count-th image."""

    number: int
    count: int

    def __str__(self) -> str:
        """Return it as the command line has it."""
        return f"{self.number}/{self.count}"

    def of(self, index: Any) -> Any:
        """Return its part of `index`."""
        return index[self.number - 1 :: self.count]

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read '2/5'.

        Raises:
            ValueError: it is none, or beyond the count.

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
"""A shard as a record holds it; written as '2/5'."""


class DataRecord(Frozen):
    """The images that a figure is measured on, or that a graph is made with."""

    name: Text
    n: Annotated[int, Field(gt=0)]
    sha256: Digest


def to_json(record: BaseModel) -> bytes:
    """Return a record as JSON: sorted, indented, one newline at the end; the bytes that are hashed."""
    content = record.model_dump(mode="json", by_alias=True)
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
