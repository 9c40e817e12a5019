"""--help of a command with many options: each is in exactly one group, in the words that it has."""

from collections import Counter

import click
import pytest

from runtime.cli import main
from runtime.options.groups import GroupedCommand, flag

MANY = 15
CONTEXT = click.Context(main, info_name="edgeproof", **main.context_settings)
COMMANDS = {name: main.get_command(CONTEXT, name) for name in main.list_commands(CONTEXT)}
GROUPED = {name: command for name, command in COMMANDS.items() if len(command.params) > MANY}


def sections(command):
    """Return what --help says, by the titles of its lists."""
    context = click.Context(command, parent=CONTEXT, terminal_width=10_000)
    lists, title = {}, ""
    for line in command.get_help(context).splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line.removesuffix(":")
        elif line.startswith("  -"):
            lists.setdefault(title, []).append(line.strip())
        elif title in lists and line.startswith("   "):
            lists[title][-1] += f"  {line.strip()}"
    return lists


def test_the_commands_with_many_options_are_these():
    assert GROUPED.keys() == {"verify", "evaluate", "pack", "bench"}


@pytest.mark.parametrize("name", GROUPED)
def test_every_option_is_in_exactly_one_group(name):
    command = GROUPED[name]
    assert isinstance(command, GroupedCommand)
    options = [each for each in command.get_params(CONTEXT) if isinstance(each, click.Option)]
    grouped = Counter(each for names in command.groups.values() for each in names)
    assert set(grouped.values()) == {1}
    assert {flag(each) for each in options} <= grouped.keys()
    told = Counter(line for lines in sections(command).values() for line in lines)
    assert set(told.values()) == {1}
    wanted = {" ".join(" ".join(each.get_help_record(CONTEXT)).split()) for each in options}
    assert {" ".join(line.split()) for line in told} == wanted
    assert sections(command).keys() <= command.groups.keys()
    assert len(sections(command)) > 3


@pytest.mark.parametrize("name", GROUPED)
def test_arguments_stand_in_the_usage_alone(name):
    arguments = [each.make_metavar(CONTEXT) for each in GROUPED[name].params if isinstance(each, click.Argument)]
    lines = [line.strip() for line in GROUPED[name].get_help(CONTEXT).splitlines()]
    assert arguments
    assert not set(arguments) & set(lines)


def test_an_option_that_no_group_names_is_shown_all_the_same():
    @click.command(cls=GroupedCommand, groups={"Output": ("--out", "--help")})
    @click.option("--out", help="Where.")
    @click.option("--more", help="What else.")
    def command():
        """Do it."""

    assert sections(command) == {
        "Output": ["--out TEXT  Where.", "-h, --help  Show this message and exit."],
        "Options": ["--more TEXT  What else."],
    }
