import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from jinja2 import TemplateNotFound

import runtime
from runtime import cli
from runtime.errors import BadData
from tests.paths import TINY
from tests.runtime.verdict.long_run import COMMAND

MODULES = sorted(
    ".".join(("runtime", *path.relative_to(Path(runtime.__path__[0])).with_suffix("").parts))
    for path in Path(runtime.__path__[0]).rglob("*.py")
    if path.name != "__init__.py"
)

IMPORTED_BY_HELP = """
import json, sys
from runtime.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 0
sys.stdout.flush()
sys.stderr.write(json.dumps(sorted(sys.modules)))
"""

BANNED = """
import importlib, sys
for name in ("torch", "torchvision", "onnx", "safetensors"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


class Entry:
    """An installed entry point."""

    def __init__(self, name, load, extras=()):
        self.name, self.load, self.extras = name, load, extras


@pytest.fixture
def install(monkeypatch):
    def install(*entries):
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)

    return install


def run(*arguments):
    return CliRunner().invoke(cli.main, arguments)


def absent(name):
    def load():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return load


def imported_by(*words):
    """Return what a call that ends with --help prints, and the modules that it has imported."""
    command = [sys.executable, "-c", IMPORTED_BY_HELP, *words]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout, set(json.loads(result.stderr))


def test_help_imports_nothing_heavy():
    told, imported = imported_by("--help")
    heavy = {
        "torch",
        "onnxruntime",
        "onnx",
        "numpy",
        "pydantic",
        "rich",
        "jinja2",
        "matplotlib",
        "runtime.commands.verify",
    }
    assert imported & heavy == set()
    assert "verify" in told


def test_the_help_of_verify_imports_what_reads_options_and_nothing_that_judges():
    told, imported = imported_by("verify", "--help")
    heavy = {"torch", "onnxruntime", "onnx", "numpy", "array_api_compat", "rich", "jinja2", "cryptography"}
    assert imported & heavy == set()
    assert not [
        name for name in imported if name.startswith(("runtime.report", "runtime.suite", "runtime.attacks.pgd"))
    ]
    assert "--fail-under" in told


def test_every_module_of_the_runtime_imports_where_torch_and_onnx_are_banned():
    assert "runtime.attacks.pgd" in MODULES
    subprocess.run([sys.executable, "-c", BANNED, *MODULES], check=True)


def test_help_lists_every_command_with_a_summary_and_loads_none(install):
    install(*(Entry(name, None, ["train"]) for name in [*cli.SUMMARIES, "stranger"]))
    result = run("--help")
    assert result.exit_code == 0
    assert all(summary in result.output for summary in cli.SUMMARIES.values())
    assert "stranger" in result.output
    titles = [line for line in result.output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options:", *(f"{title}:" for title in cli.COMMANDS), f"{cli.OTHERS}:"]


def test_a_command_stands_under_one_title():
    assert sum(map(len, cli.COMMANDS.values())) == len(cli.SUMMARIES)


def test_h_asks_for_help_as_well():
    assert run("-h").output == run("--help").output
    assert run("verify", "-h").output == run("verify", "--help").output


def test_the_installed_commands_are_those_with_a_summary():
    assert {*cli.SUMMARIES} == {entry.name for entry in importlib.metadata.entry_points(group=cli.COMMANDS_GROUP)}


def test_the_summary_of_verify_is_its_own_first_line():
    from runtime.commands.verify import verify

    assert verify.help.splitlines()[0] == cli.SUMMARIES["verify"]


def test_version_is_that_of_the_distribution():
    assert run("--version").output.split()[-1] == importlib.metadata.version("edgeproof")


def test_a_command_whose_extra_is_missing_names_it(install):
    install(Entry("distill", absent("torch"), ["train"]))
    result = run("distill")
    assert result.exit_code == 4
    assert "needs the extra 'train': torch is not installed" in result.stderr
    assert "hint: pip install '.[train]'" in result.stderr
    assert run("--help").exit_code == 0


def test_an_extra_that_is_missed_only_while_the_command_runs_is_named_too(install):
    install(Entry("distill", lambda: click.Command("distill", callback=absent("torch")), ["train"]))
    assert run("distill").exit_code == 4


def test_a_missing_module_of_a_command_without_extras_is_no_extra(install):
    install(Entry("verify", absent("something")))
    result = run("verify")
    assert result.exit_code == 70
    assert "ModuleNotFoundError: No module named 'something'" in result.stderr


def test_an_extra_that_is_installed_but_broken_says_why(install):
    def load():
        raise ImportError("libcudart.so.12: cannot open shared object file", name="torch._C")

    install(Entry("distill", load, ["train"]))
    result = run("distill")
    assert result.exit_code == 4
    assert "libcudart.so.12: cannot open shared object file" in result.stderr
    assert "is not installed" not in result.stderr


def test_training_on_an_old_python_names_the_version_it_needs(install):
    install(Entry("distill", absent("tomllib"), ["train"]))
    result = run("distill")
    assert result.exit_code == 4
    assert "needs Python 3.11 or newer" in result.stderr
    assert "pip install '.[train]'" not in result.stderr


def test_a_module_of_edgeproof_that_cannot_be_imported_is_no_extra(install):
    def load():
        raise ImportError("cannot import name 'x' from 'pipeline.data.sets'", name="pipeline.data.sets")

    install(Entry("distill", load, ["train"]))
    assert run("distill").exit_code == 70


def test_what_nobody_expected_prints_its_traceback_and_never_exits_with_one(install):
    def fail():
        return {}["lost"]

    install(Entry("verify", lambda: click.Command("verify", callback=fail)))
    result = run("verify")
    assert (result.exit_code, result.stdout) == (70, "")
    assert "KeyError: 'lost'" in result.stderr
    assert result.stderr.splitlines()[-1] == "this is a defect of edgeproof: please report it"


CLICK_EXITS = {
    "usage": (click.UsageError("no"), 2),
    "parameter": (click.BadParameter("no"), 2),
    "exit": (click.exceptions.Exit(5), 5),
    "abort": (click.Abort(), 1),
}


@pytest.mark.parametrize(("error", "code"), CLICK_EXITS.values(), ids=CLICK_EXITS)
def test_clicks_own_errors_stay_its_own(install, error, code):
    def fail():
        raise error

    install(Entry("verify", lambda: click.Command("verify", callback=fail)))
    result = run("verify")
    assert result.exit_code == code
    assert "defect" not in result.stderr


def test_a_typed_error_is_two_lines_on_stderr_and_its_exit_code(install):
    def fail():
        raise BadData("the images are blue", hint="paint them")

    install(Entry("verify", lambda: click.Command("verify", callback=fail)))
    result = run("verify")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: the images are blue\nhint: paint them\n"


def test_a_file_system_that_refuses_is_the_environments_fault(install):
    def write():
        raise PermissionError(13, "Permission denied", "reports/x")

    install(Entry("verify", lambda: click.Command("verify", callback=write)))
    result = run("verify")
    assert result.exit_code == 4
    assert result.stderr.splitlines()[0] == "error: [Errno 13] Permission denied: 'reports/x'"
    assert "hint: choose a place that this user may write to" in result.stderr


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EIO, "the disk or its mount fails"),
        (errno.ESTALE, "mount it again"),
        (errno.ENOTCONN, "mount it again"),
        (errno.ENODEV, "mount it again"),
        (errno.ENOMEM, "more memory for the container"),
    ],
)
def test_a_mount_that_is_lost_and_a_lack_of_memory_come_with_what_to_do(install, number, says):
    def write():
        raise OSError(number, os.strerror(number), "reports/x")

    install(Entry("verify", lambda: click.Command("verify", callback=write)))
    result = run("verify")
    assert result.exit_code == 4
    assert f"error: [Errno {number}]" in result.stderr
    assert says in result.stderr.partition("hint: ")[2]


def test_an_os_error_that_is_not_the_systems_is_a_defect(install):
    def fail():
        raise TemplateNotFound("report.html.j2")

    install(Entry("verify", lambda: click.Command("verify", callback=fail)))
    result = run("verify")
    assert result.exit_code == cli.DEFECT
    assert "Traceback" in result.stderr
    assert "report.html.j2" in result.stderr


def test_the_commands_of_a_group_are_listed_uncut():
    result = run("key", "--help")
    listed = result.stdout.partition("Commands:")[2]
    assert "new  Make a key pair." in listed
    assert "..." not in listed


PIPED = {
    "stdout": ["inspect", str(TINY)],
    "help": ["--help"],
    "help of a command": ["verify", "--help"],
    "a table of rich's": ["bench", str(TINY), "--seconds", "0.01", "--idle", "0"],
}


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "and stderr"])
@pytest.mark.parametrize("arguments", PIPED.values(), ids=PIPED)
def test_output_that_nobody_reads_ends_a_command_quietly(arguments, both):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as pipe:
        result = subprocess.run(
            COMMAND + arguments, stdout=pipe, stderr=pipe if both else subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 141
    assert both or not [line for line in result.stderr.splitlines() if not line.startswith("fp32, batch")]


def test_a_pipe_of_the_work_itself_that_breaks_is_an_error(install):
    def write():
        raise BrokenPipeError(32, "Broken pipe")

    install(Entry("verify", lambda: click.Command("verify", callback=write)))
    result = run("verify")
    assert (result.exit_code, result.stderr) == (4, "error: [Errno 32] Broken pipe\n")


def test_an_interrupt_is_one_line_and_130(install):
    def interrupt():
        raise KeyboardInterrupt

    install(Entry("verify", lambda: click.Command("verify", callback=interrupt)))
    result = run("verify")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_an_unknown_command_is_a_usage_error(install):
    install()
    assert run("dance").exit_code == 2
