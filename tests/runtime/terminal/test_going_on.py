"""What is said of a stopped run: a command that a shell takes as it stands."""

import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from runtime import cli
from runtime.terminal.going_on import to_go_on
from runtime.words import exact_radius


class Entry:
    name = "verify"
    extras = ()

    @staticmethod
    def load():
        @click.command()
        @click.argument("bundle")
        @click.option("--data")
        @click.option("--out")
        @click.option("--resume", is_flag=True)
        def verify(bundle, data, out, resume):
            click.echo(to_go_on(Path("my run")))

        return verify


TYPED = {
    "a place of its own making": (["--data", "a b"], ["--data", "a b"]),
    "a place that was named": (["--out", "my run", "--data", "x"], ["--data", "x"]),
    "one named in one word, gone on with before": (["--out=my run", "--resume"], []),
}


@pytest.mark.parametrize(("typed", "kept"), TYPED.values(), ids=TYPED)
def test_the_whole_command_is_said_in_words_for_a_shell(monkeypatch, typed, kept):
    monkeypatch.setattr(cli, "_found", lambda: {"verify": Entry})
    said = CliRunner().invoke(cli.main, ["verify", "it's", *typed]).stdout
    words = shlex.split(said.partition("to resume: ")[2])
    assert words == ["edgeproof", "verify", "it's", *kept, "--out", "my run", "--resume"]


def test_where_nobody_typed_a_command_only_its_options_are_said():
    assert to_go_on(Path("run")).endswith("to resume: the same command with --out run --resume")


@pytest.mark.parametrize(
    ("eps", "written"), [(8 / 255, "8/255"), (2.5 / 255, "2.5/255"), (0, "0/255"), (0.031, "0.031")]
)
def test_a_radius_is_written_so_that_the_same_float_is_read(eps, written):
    numerator, _, denominator = written.partition("/")
    assert exact_radius(eps) == written
    assert float(numerator) / float(denominator or 1) == eps
