"""The command line, called in this process."""

from click.testing import CliRunner

from runtime.cli import main


def edgeproof(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
