"""What is said on stderr beside results and errors: one logger; how much it says is for -q and -v to tell."""

from __future__ import annotations

import logging
import os
import sys

from runtime.words import printable_lines

VARIABLE = "EDGEPROOF_LOG"
LEVELS = {"quiet": logging.WARNING, "verbose": logging.DEBUG}


class _Stderr(logging.Handler):
    """Writes where stderr is at the moment: above the bar, while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, in which a text from outside is no more than text.

        That nobody reads any more is for the command line to know.
        """
        sys.stderr.write(f"{printable_lines(self.format(record))}\n")
        sys.stderr.flush()


log = logging.getLogger("edgeproof")
log.addHandler(_Stderr())
log.propagate = False
log.setLevel(LEVELS.get(os.environ.get(VARIABLE, ""), logging.INFO))


def say(how_much: str) -> None:
    """Choose a level by name from here on, in this process and in those that it starts."""
    os.environ[VARIABLE] = how_much
    log.setLevel(LEVELS[how_much])


def is_quiet() -> bool:
    """Return whether warnings and errors alone are said: no bar either."""
    return not log.isEnabledFor(logging.INFO)
