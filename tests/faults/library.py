"""faults.c, built where there is a C compiler, and armed in the process that it was preloaded into."""

import ctypes
import errno
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
CHANGE, REMOVE, READ = 1, 2, 4
ANSWER_ONCE, ANSWER_FROM_NOW_ON, KILL = range(3)


@dataclass(frozen=True)
class Fault:
    """What befalls a command at one of its writes.

    Args:
        what: in words.
        counts: calls of which kinds are counted, each a place to begin.
        fails: calls of which kinds fail from then on, where it lasts.
        error: the number that they fail with.
        action: what is done.
        cleans_up: whether the command can still remove what it wrote.

    """

    what: str
    counts: int
    fails: int = 0
    error: int = 0
    action: int = ANSWER_ONCE
    cleans_up: bool = True


CHANGES = CHANGE | REMOVE
FAULTS = {
    "full": Fault("disk full from then on (ENOSPC)", CHANGE, CHANGE, errno.ENOSPC, ANSWER_FROM_NOW_ON),
    "read-only": Fault("read-only from then on (EROFS)", CHANGES, CHANGES, errno.EROFS, ANSWER_FROM_NOW_ON, False),
    "lost": Fault(
        "mount lost from then on, reading too (ESTALE)",
        CHANGES,
        CHANGES | READ,
        errno.ESTALE,
        ANSWER_FROM_NOW_ON,
        False,
    ),
    "io": Fault("one call fails (EIO)", CHANGES, error=errno.EIO),
    "no memory": Fault("one call finds no memory (ENOMEM)", CHANGES, error=errno.ENOMEM),
    "out of memory": Fault("SIGKILL, as of the OOM killer", CHANGES, action=KILL, cleans_up=False),
}


def compiler():
    """Return the C compiler; None where there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


def build(directory):
    """Build the library in a directory, and return its path."""
    library = Path(directory).resolve() / "faults.so"
    if not library.exists():
        command = [compiler(), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
        subprocess.run(command, check=True)
    return library


def preloaded():
    """Return the library that this process was started with, None where it was not."""
    path = os.environ.get("LD_PRELOAD", "")
    return Path(path) if path.endswith("faults.so") else None


def arm(directory, fault, number, report):
    """Let the calls under a directory feel a fault from the one with this number on, from 1.

    That call is written to the open file `report`, where there are so many.
    """
    library = _loaded()
    library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, *[ctypes.c_int] * 5]
    library.faults_arm(os.fsencode(directory), number, fault.counts, fault.fails, fault.error, fault.action, report)


def disarm():
    """End that; return how many calls were counted."""
    _loaded().faults_disarm.restype = ctypes.c_long
    return _loaded().faults_disarm()


def _loaded():
    return ctypes.CDLL(str(preloaded()))
