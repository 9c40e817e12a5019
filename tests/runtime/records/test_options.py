"""One record says what is asked: the command line, the defaults and the recorded command follow from its fields."""

import shlex
from typing import Annotated

import click
import pytest
from click.testing import CliRunner

from runtime.options.record import record_options
from runtime.records.options import Option, RecordedOptions, command_words, without_option
from runtime.records.request import Request, RunRecord
from runtime.spec import Shard, to_json
from runtime.verdict.options import VerifyOptions
from tests.paths import ROOT

STORED = ROOT / "tests" / "data" / "run.json"
"""A run.json that an earlier version wrote."""


class More(RecordedOptions):
    """The options of a later version: one flag and one value more."""

    strict: Annotated[bool, Option("Whatever it may mean.")] = False
    least: Annotated[int | None, Option("A number that it takes.", type=click.IntRange(min=1))] = None


class MoreRequested(Request, More):
    """What a later version records."""


def asked_for(record, *words):
    """Return the record that a command line asks for."""
    asked = []
    command = click.command()(record_options(options=record)(lambda options: asked.append(options)))
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return asked[0]


def test_a_field_is_all_that_a_flag_needs():
    assert asked_for(More) == More()
    asked = asked_for(More, "--strict", "--least", 3, "--seed", 2)
    assert (asked.strict, asked.least, asked.seed) == (True, 3, 2)
    assert shlex.join(command_words(asked)) == "--seed 2 --batch auto --least 3 --strict"
    assert asked_for(More, *command_words(asked)) == asked


COMMANDS = {
    "silent": [],
    "values": ["--attacks", "clean,pgd,aa,pgd", "--n", 9, "--eps", "8/255", "--data", "my set.npz", "--layout", "nhwc"],
    "gates": ["--fail-under", "45%", "--max-drop", "0.01", "--data-root", "elsewhere", "--lattice", "uint8"],
    "flags": ["--no-gate", "--until-decided", "--save-adversarial"],
    "a shard": ["--shard", "2/5", "--seed", 2**64 - 1, "--batch", 1],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_command_of_a_record_asks_for_that_record(words):
    asked = asked_for(VerifyOptions, *words)
    assert asked_for(VerifyOptions, *command_words(asked)) == asked


def test_what_the_command_line_is_silent_about_is_not_set():
    assert asked_for(VerifyOptions).model_fields_set == set()
    assert asked_for(VerifyOptions, "--n", 3).model_fields_set == {"n"}


def test_an_option_is_taken_out_of_a_recorded_command_and_of_nothing_else():
    words = command_words(VerifyOptions(shard=Shard(2, 5), data="x --shard 2/5"))
    command = f"edgeproof verify BUNDLE {shlex.join(words)}"
    expected = command_words(VerifyOptions(data="x --shard 2/5"))
    whole = without_option(command, Request, "shard")
    assert shlex.split(whole) == ["edgeproof", "verify", "BUNDLE", *expected]
    assert without_option(whole, Request, "shard") == whole


def test_a_run_of_before_is_read_and_its_request_keeps_its_digest():
    content = STORED.read_bytes()
    record = RunRecord.model_validate_json(content)
    assert record.request.digest() == record.request_sha256
    assert to_json(record) == content


def test_a_request_keeps_its_digest_when_a_field_is_added_unless_that_is_asked_for():
    request = RunRecord.model_validate_json(STORED.read_bytes()).request
    later = MoreRequested.model_validate_json(to_json(request))
    assert later.digest() == request.digest()
    assert b"strict" not in to_json(later)
    strict = later.model_copy(update={"strict": True})
    assert strict.digest() != request.digest()
    assert strict.unlike(later) == ["strict"]
    assert MoreRequested.model_validate_json(to_json(strict)) == strict


def test_an_option_reads_what_its_field_reads_and_says_what_it_expects():
    command = click.command()(record_options(options=VerifyOptions)(lambda options: None))
    for words, message in (
        (["--eps", "8"], "'8' is not a number from 0 to 1, like 8/255, 0.03 or 45%"),
        (["--max-drop", "1"], "'1' is not a drop below 100 %, like 1% or 0.01; did you mean 1%?"),
        (["--attacks", "pgd,magic"], "'magic' is not an attack; known: clean, fgsm"),
        (["--shard", "6/5"], "'6/5' is not I/N with 1 <= I <= N, like 2/5"),
    ):
        result = CliRunner().invoke(command, words)
        assert (result.exit_code, message in result.output) == (2, True), result.output
