"""A command in a process of its own, forked from this one, which has imported everything: a start costs nothing."""

import atexit
import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from datetime import datetime

from runtime import words
from runtime.cli import main
from tests.faults import library

PATIENCE = 120.0
"""Seconds after which a command hangs."""
STREAMS = ("stdout", "stderr", "felt", "counted", "modules")


class Still(datetime):
    """A wall clock that stands still, so that what two runs write can be the same to the bit."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1, tzinfo=tz)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: exit code; of a signal the negative number.
        said: stderr.
        seconds: it took.
        felt: the call that felt the fault first, and its path; nothing where none did.
        counted: the calls that a fault counts, to its end.
        hung: whether it had to be ended.

    """

    code: int
    said: str
    seconds: float
    felt: str = ""
    counted: int = 0
    hung: bool = False


def start(command, place, scratch, fault=None, number=0):
    """Start `edgeproof COMMAND` in `place`, what it says in `scratch`; return its process, the leader of a group."""
    for stream in STREAMS:
        (scratch / stream).write_bytes(b"")
    process = os.fork()
    if process:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(process, process)
        return process
    code = 70
    try:
        os.setpgid(0, 0)
        code = _run(command, place, scratch, fault, number)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(process, scratch, began, patience=PATIENCE):
    """Wait for its end; what is left of its group ends too."""
    handle = os.pidfd_open(process)
    hung = not select.select([handle], [], [], patience)[0]
    os.close(handle)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    said, felt, counted = ((scratch / each).read_text(errors="replace") for each in ("stderr", "felt", "counted"))
    return Ended(code, said, time.monotonic() - began, felt, int(counted or 0), hung)


def run(command, place, scratch, fault=None, number=0):
    """Run it to its end, with a fault at the write with a number."""
    began = time.monotonic()
    return wait(start(command, place, scratch, fault, number), scratch, began)


def _run(command, place, scratch, fault, number):
    out, error, felt, counted, modules = (os.open(scratch / stream, os.O_WRONLY) for stream in STREAMS)
    os.dup2(out, 1)
    os.dup2(error, 2)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1) for stream in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(place)
    os.environ["TMPDIR"], tempfile.tempdir = str(place / "tmp"), None
    words.datetime, sys.dont_write_bytecode = Still, True
    if fault:
        library.arm(place, fault, number, felt)
    code = 0
    try:
        main.main([str(word) for word in command], prog_name="edgeproof")
    except SystemExit as done:
        code = done.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    if fault:
        os.write(counted, str(library.disarm()).encode())
    os.write(modules, "\n".join(sys.modules).encode())
    return code


def import_what_it_did(scratch):
    """Import what a command imported when it ran last, so that the next one finds it."""
    for name in (scratch / "modules").read_text().split():
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each process goes through all of it, and so copies it
