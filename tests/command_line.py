"""The command line, called in this process."""

from click.testing import CliRunner

from runtime.cli import main


def edgeproof(*arguments, env=None):
    """Return exit code, stdout and stderr; an exception that is no exit is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
