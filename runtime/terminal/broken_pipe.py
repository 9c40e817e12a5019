"""Output that nobody reads any more, as after `edgeproof ... | head`: the command ends without a word."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREAD = 141
"""Exit code of a command whose reader has gone: what a shell says of one that SIGPIPE killed, and never a verdict's."""
OUTPUT = (1, 2)


@contextlib.contextmanager
def ends_quietly() -> Iterator[None]:
    """End the process where stdout or stderr has lost its reader; a pipe of the work's own that breaks is an error.

    Raises:
        SystemExit: with UNREAD.

    """
    try:
        yield
    except BrokenPipeError:
        if not (broken := unread()):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in broken:  # else Python complains when it flushes at its end
            os.dup2(nowhere, descriptor)
        sys.exit(UNREAD)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich was told first, and ends with 1: a verdict's
            sys.exit(UNREAD)
        raise


def unread() -> list[int]:
    """Return which of stdout and stderr, by descriptor, have lost their reader."""
    poll = select.poll()
    for descriptor in OUTPUT:
        poll.register(descriptor, 0)  # errors are told unasked
    return [descriptor for descriptor, event in poll.poll(0) if event & select.POLLERR]
