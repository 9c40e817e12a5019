"""Every text of every file that is read or written has a type that says where it may go.

A record with a bare `str` fails here: a new field takes `Name` where it becomes part of a path, `Command` where people
paste it into a shell, else `Text`, which moves no cursor and breaks no line; so do the keys of dictionaries.
"""

import importlib
import pkgutil
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import export
import pipeline
import runtime
from runtime.bundle.manifest import FileName, KnownPrecision
from runtime.bundle.signing import Exact
from runtime.spec import LONGEST_TEXT, Command, Digest, Document, Name, ProviderName, Text

KINDS = (Text, Name, ProviderName, Digest, Command, Document, FileName, KnownPrecision, Exact)
OF_ITS_METHODS = {"MethodTable.options"}
"""Fields that every record made of theirs says itself."""


def records():
    """Return every record of the three packages."""
    for package in (runtime, export, pipeline):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, left = {}, [BaseModel]
    while left:
        for record in left.pop().__subclasses__():
            if record not in found:
                found[record] = None
                left.append(record)
    return [record for record in found if record.__module__.partition(".")[0] in ("runtime", "export", "pipeline")]


def of_a_kind(annotation):
    base, *metadata = get_args(annotation)
    kinds = (get_args(kind) for kind in KINDS)
    return any(base == known and metadata[: len(its)] == its for known, *its in kinds)


def bare(annotation):
    """Say whether a text of no kind, or anything at all, may stand where an annotation does."""
    if get_origin(annotation) is Annotated:
        return not of_a_kind(annotation) and bare(get_args(annotation)[0])
    return annotation in (str, object, Any) or any(map(bare, get_args(annotation)))


def test_no_record_has_a_text_of_no_kind():
    fields = [
        f"{record.__name__}.{name}"
        for record in records()
        for name, annotation in get_type_hints(record, include_extras=True).items()
        if name in record.model_fields and bare(annotation)
    ]
    assert set(fields) == OF_ITS_METHODS
    assert len(records()) > 70


@pytest.mark.parametrize("annotation", [str, str | None, tuple[str, ...], dict[str, int], dict[Name, Any], Any, object])
def test_a_new_text_of_no_kind_would_be_seen(annotation):
    assert bare(annotation)
    assert bare(Annotated[annotation, "described"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_stays_one_among_others(kind):
    for annotation in (kind, kind | None, tuple[kind, ...], dict[Name, kind], Annotated[kind, "described"]):
        assert not bare(annotation)


def test_a_text_is_on_one_line_and_acts_on_nothing():
    text = TypeAdapter(Text).validate_python
    assert text("caf\u00e9 \u2014 \u6f22 a\u200db") == "caf\u00e9 \u2014 \u6f22 a\u200db"
    assert text("a\nb\tc\r\x0b\u2028d") == "a b c   d"
    assert text("\x1b[31mred\x07 \x9b2J \u202etxt.exe \ud800") == "?[31mred? ?2J ?txt.exe ?"
    with pytest.raises(ValidationError):
        text("a" * (LONGEST_TEXT + 1))
    assert TypeAdapter(Document).validate_python({"a\x1b": [{"b": "c\x1b"}, 1]}) == {"a?": [{"b": "c?"}, 1]}


@pytest.mark.parametrize("climbs", ["../x", "a/b", ".hidden", "-rf", "a b", "a;b", "", "[/x]", "a\n"])
def test_no_name_leaves_its_directory(climbs):
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(climbs)


@pytest.mark.parametrize("runs", ["a; b", "a `b`", "a $(b)", "a | b", "a > b", "a & b", 'a "$(b)"', "a 'b' c'", "a $b"])
def test_no_command_runs_another(runs):
    with pytest.raises(ValidationError):
        TypeAdapter(Command).validate_python(runs)
