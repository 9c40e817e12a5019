"""The command line: one group whose commands are found by entry point and imported when they are called.

Nothing heavy may be imported here: `edgeproof --help` answers at once, on a device without any extra.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runtime.errors import DEFECT, EdgeproofError, MissingEnvironment, missing_extra
from runtime.interrupt import sigterm_interrupts
from runtime.terminal.broken_pipe import ends_quietly, unread
from runtime.terminal.going_on import TYPED
from runtime.terminal.log import log, say
from runtime.words import did_you_mean, printable, printable_lines

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from runtime.errors import Page

COMMANDS_GROUP = "edgeproof.commands"
INTERRUPTED = 130
GONE = "the file system is gone: mount it again; a command that takes --resume goes on"
MORE_MEMORY = "a smaller --batch, or more memory for the container"
HINTS = {
    errno.ENOSPC: "free some space on that disk; a command with --resume can then continue",
    errno.EDQUOT: "your quota on that disk is used up: free some space",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "choose a place that this user may write to",
    errno.EIO: "the disk or its mount fails: see the system's log. A command with --resume can then continue",
    errno.ENOMEM: MORE_MEMORY,
    **dict.fromkeys((errno.ESTALE, errno.ENOTCONN, errno.ENODEV), GONE),
}
"""What to do about an error of the operating system, by its number."""
CLICK_EXITS = (click.ClickException, click.exceptions.Exit, click.Abort)

COMMANDS = {
    "Train": {
        "recipes": "List the names you can use: recipes, methods, teachers.",
        "teach": "Train a robust teacher.",
        "distill": "Train the student.",
        "evaluate": "Run the attack suite on the PyTorch student.",
        "study": "Train and judge a table of runs: methods, students, radii, seeds.",
    },
    "Ship": {
        "export": "Turn a checkpoint into a bundle.",
        "pack": "Turn any ONNX classifier into a bundle.",
        "key": "Make a key pair for signing bundles.",
        "sign": "Sign an existing bundle in place.",
        "install": "Install a bundle on a device; keep the previous one.",
        "push": "Upload a bundle to the Hugging Face Hub.",
    },
    "Judge": {
        "verify": "Attack the artifact that ships, on this machine, and judge it.",
        "merge": "Combine the shards of one run, and judge it.",
        "compare": "Compare finished runs, image by image.",
        "report": "Write the report files of a finished run again.",
    },
    "Inspect": {
        "inspect": "Show what is in a bundle, and check every byte.",
        "targets": "List the engines that can judge on this machine.",
        "bench": "Measure speed, power and temperature of the model on this machine.",
        "gpu-check": "Compare this machine's GPU with its CPU, image by image.",
    },
}
"""A one-line summary of each command, under the title that --help shows. --help imports no command."""
OTHERS = "Other"
SUMMARIES = {name: told for commands in COMMANDS.values() for name, told in commands.items()}
"""The summaries of all commands, by name."""


def _say(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        say(str(param.name))


VERBOSITY = tuple(
    click.Option(names, is_flag=True, expose_value=False, callback=_say, help=told)
    for names, told in (
        (("-q", "--quiet"), "Show only warnings and errors on stderr."),
        (("-v", "--verbose"), "Show more on stderr; for an error, where it arose."),
    )
)
"""Options that every command has."""


def _with_verbosity(command: click.Command) -> click.Command:
    """Add VERBOSITY to a command, and to the commands of a group, where they lack it; return the command."""
    command.params += [option for option in VERBOSITY if option not in command.params]
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        _with_verbosity(part)
    return command


class LazyGroup(click.Group):
    """Commands from the entry-point group `edgeproof.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the installed commands: the known ones in their order, then the others."""
        found = _found()
        return [name for name in SUMMARIES if name in found] + sorted(found.keys() - SUMMARIES.keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command and return it; None if there is no command of this name."""
        entry = _found().get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = entry.load()
        except ImportError as error:
            raise _missing(entry, error) from error
        return _with_verbosity(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command's name, the command and the arguments left for it; refuse an unknown name."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {printable(repr(name))}{did_you_mean(name, known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by purpose, without importing any."""
        found = self.list_commands(ctx)
        others = {name: "" for name in found if name not in SUMMARIES}
        for title, commands in {**COMMANDS, OTHERS: others}.items():
            if rows := [(name, told) for name, told in commands.items() if name in found]:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **options: Any) -> click.Context:
        """Parse the arguments, and keep them as they were typed; --help exits here."""
        typed = tuple(args)
        with ends_quietly():
            ctx = super().make_context(info_name, args, *more, **options)
        ctx.meta[TYPED] = typed
        return ctx

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn its typed errors and an interrupt into a few lines and an exit code.

        An unexpected error keeps its traceback and exits with DEFECT.
        """
        with ends_quietly():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            with sigterm_interrupts():
                return self._run(ctx)
        except EdgeproofError as error:
            log.debug("this error arose here:", exc_info=True)
            _tell(error.message, error.hint, error.page)
            ctx.exit(error.exit_code)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and unread():
                raise
            if error.errno is None:  # a library raised it, such as jinja2's TemplateNotFound; the system did not
                _end_as_defect(ctx)
            _tell(str(error), HINTS.get(error.errno))
            ctx.exit(MissingEnvironment.exit_code)
        except MemoryError:
            _tell("memory ran out", MORE_MEMORY)
            ctx.exit(MissingEnvironment.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except CLICK_EXITS:
            raise
        except Exception:
            _end_as_defect(ctx)

    def _run(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImportError as error:
            entry = _found().get(ctx.invoked_subcommand or "")
            if entry is None:
                raise
            raise _missing(entry, error) from error


def _end_as_defect(ctx: click.Context) -> NoReturn:
    import traceback  # slow to import

    click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo("this is a defect of edgeproof: please report it", err=True)
    ctx.exit(DEFECT)


def _tell(error: str, hint: str | None, page: Page | None = None) -> None:
    """Write an error to stderr. Control characters in texts from outside are replaced."""
    lines = (f"error: {error}", f"hint: {hint}" if hint else "", f"see: {page}" if page else "")
    click.echo(printable_lines("\n".join(filter(None, lines))), err=True)


def _found() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # slow to import

    return {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}


def _missing(entry: EntryPoint, error: ImportError) -> Exception:
    return missing_extra(f"`edgeproof {entry.name}`", tuple(entry.extras), error)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeproof", prog_name="edgeproof")
def main() -> None:
    """Distil, export and verify robust image classifiers for the edge."""


_with_verbosity(main)
