"""The logger of messages on stderr, besides results and errors; -q and -v set its level."""

from __future__ import annotations

import logging
import os
import sys

from runtime.words import printable_lines

VARIABLE = "EDGEPROOF_LOG"
LEVELS = {"quiet": logging.WARNING, "verbose": logging.DEBUG}


class _Stderr(logging.Handler):
    """Writes to the current stderr: above the progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, with control characters replaced.

        The command line handles an error because nobody reads any more.
        """
        sys.stderr.write(f"{printable_lines(self.format(record))}\n")
        sys.stderr.flush()


log = logging.getLogger("edgeproof")
log.addHandler(_Stderr())
log.propagate = False
log.setLevel(LEVELS.get(os.environ.get(VARIABLE, ""), logging.INFO))


def say(how_much: str) -> None:
    """Set the level by name, for this process and those that it starts."""
    os.environ[VARIABLE] = how_much
    log.setLevel(LEVELS[how_much])


def is_quiet() -> bool:
    """Return whether only warnings and errors are shown, and no progress bar."""
    return not log.isEnabledFor(logging.INFO)
