"""What a command says on stderr, as -q and -v choose; stdout, the exit code and errors stay."""

import logging
import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from runtime.cli import COMMANDS_GROUP, main
from runtime.terminal import log as module
from runtime.terminal.log import VARIABLE, is_quiet, log
from runtime.terminal.progress import Silent, progress_on_stderr
from tests.command_line import edgeproof

pytestmark = pytest.mark.usefixtures("verbosity_as_before")


def verify(bundle, out, *flags):
    return edgeproof("verify", bundle, "--out", out, *flags)


def test_quiet_leaves_of_a_run_its_result_alone(bundle, tmp_path):
    usual, quiet = (verify(bundle, tmp_path / name, *flags) for name, flags in (("a", ()), ("b", ("-q",))))
    assert " images in " in usual.stderr
    assert quiet.stderr == ""
    assert quiet.exit_code == usual.exit_code
    assert quiet.stdout.replace("/b", "/a") == usual.stdout


PLACES = {
    "before the command": ("-q", "key", "new"),
    "before the last word": ("key", "-q", "new"),
    "after it": ("key", "new", "-q"),
    "before one that is no group": ("-q", "inspect"),
}


@pytest.mark.parametrize("words", PLACES.values(), ids=PLACES)
def test_quiet_may_stand_anywhere(bundle, tmp_path, words):
    more = (bundle,) if "inspect" in words else ("--out", tmp_path / "keys")
    result = edgeproof(*words, *more)
    assert (result.exit_code, is_quiet()) == (0, True), result.stderr


def test_quiet_keeps_warnings_and_errors(tmp_path, capsys):
    wrong = edgeproof("inspect", tmp_path, "--quiet")
    assert wrong.stderr.startswith(f"error: {tmp_path} is not a bundle")
    assert wrong.exit_code == 3
    log.info("how far it is")
    log.warning("classes are taken in their order")
    assert capsys.readouterr().err == "classes are taken in their order\n"


def test_quiet_shows_no_bar_on_a_terminal(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    edgeproof("inspect", tmp_path, "-q")
    with progress_on_stderr() as progress:
        assert isinstance(progress, Silent)


def test_verbose_says_which_engine_and_units_there_are_and_where_an_error_arose(bundle, tmp_path):
    said = verify(bundle, tmp_path / "a", "-v").stderr
    assert "forward graph" in said
    assert "CPUExecutionProvider" in said
    assert "pgd-0: " in said
    wrong = edgeproof("inspect", tmp_path, "--verbose").stderr
    assert "in open_bundle" in wrong
    assert wrong.splitlines()[-2].startswith("error: ")


def test_processes_that_a_quiet_one_starts_are_quiet(tmp_path):
    edgeproof("inspect", tmp_path, "-q")
    child = "from runtime.terminal.log import is_quiet; import sys; sys.exit(not is_quiet())"
    assert subprocess.run([sys.executable, "-c", child], env=os.environ).returncode == 0
    assert is_quiet()


@pytest.mark.parametrize("name", sorted(entry.name for entry in entry_points(group=COMMANDS_GROUP)))
def test_every_command_can_be_quiet_and_verbose(name):
    flags = [flag for option in main.get_command(None, name).params for flag in option.opts]
    assert [flags.count(flag) for flag in ("-q", "--quiet", "-v", "--verbose")] == [1, 1, 1, 1]
    assert main.get_command(None, name) is main.get_command(None, name)


def test_a_variable_that_says_nothing_known_changes_nothing():
    child = f"import os; os.environ[{VARIABLE!r}] = 'x'; from runtime.terminal.log import log; print(log.level)"
    said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout
    assert int(said) == logging.INFO
    assert module.LEVELS.keys() == {"quiet", "verbose"}
