"""Ends a command quietly if nobody reads its output any more, as after `edgeproof ... | head`."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREAD = 141
"""Exit code of a command whose reader has gone: that of a process that SIGPIPE killed, and never a verdict's."""
OUTPUT = (1, 2)


@contextlib.contextmanager
def ends_quietly() -> Iterator[None]:
    """End the process if stdout or stderr has lost its reader. Another broken pipe, within the work, stays an error.

    Raises:
        SystemExit: with UNREAD.

    """
    try:
        yield
    except BrokenPipeError:
        if not (broken := unread()):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in broken:  # otherwise Python reports an error when it flushes at the end
            os.dup2(nowhere, descriptor)
        sys.exit(UNREAD)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich caught it and exits with 1, a verdict's code
            sys.exit(UNREAD)
        raise


def unread() -> list[int]:
    """Return the descriptors of stdout and stderr that have lost their reader."""
    poll = select.poll()
    for descriptor in OUTPUT:
        poll.register(descriptor, 0)  # errors are always reported
    return [descriptor for descriptor, event in poll.poll(0) if event & select.POLLERR]
