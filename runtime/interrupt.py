"""SIGTERM, by which containers and service managers end a process, as an interrupt: Ctrl-C and it end alike."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE_SIGNAL_SECONDS = 1.0
"""What comes so soon after the first signal is the same: `timeout` and a terminal may send one twice."""
CLEAN_SECONDS = 2.0
"""So long a process that a second signal ends may take to end by itself."""


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt in the block; only the main thread can ask for that, in others nothing is.

    Process 1 of a container ignores the signals that it has no handler for: without this `docker stop` would wait, and
    then kill.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _second_signal_ends():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _second_signal_ends() -> Iterator[None]:
    """Let a second SIGTERM or Ctrl-C end the process even where no Python runs: within a long call of a library.

    A handler in Python waits until such a call returns. What Python writes to the wakeup descriptor when a signal
    arrives, a thread reads meanwhile.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reads,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writes)


def _watch(reads: int) -> None:
    """End the process, and close nothing, CLEAN_SECONDS after a second signal; return when the pipe is closed."""
    first = None
    with open(reads, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] not in (signal.SIGTERM, signal.SIGINT):
                continue
            first = first or time.monotonic()
            if time.monotonic() - first < ONE_SIGNAL_SECONDS:
                continue
            if select.select([pipe], [], [], CLEAN_SECONDS)[0] and not pipe.read(1):
                return  # the command has ended meanwhile
            os._exit(128 + number[0])


os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
"""A signal to a forked worker, as of a data loader, is none to the process that it was forked from."""


@contextlib.contextmanager
def defer_signals(*, alone: bool = True, told: bool = True) -> Iterator[Callable[[], bool]]:
    """Let the first SIGTERM or Ctrl-C only ask the block to end, for it to do so where it can go on from.

    Yields what tells whether that was asked. A second signal raises KeyboardInterrupt at once; one within
    ONE_SIGNAL_SECONDS is the first again. Outside the main thread nothing is held back.

    Args:
        alone: whether this is the only process of its work; others leave Ctrl-C, which all get, to their parent.
        told: whether to say so on stderr.

    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    first = 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal first
        if asked.is_set():
            if time.monotonic() - first < ONE_SIGNAL_SECONDS:
                return
            raise KeyboardInterrupt
        first = time.monotonic()
        asked.set()
        if told:
            log.warning("ending after this step; a second signal ends at once, with the last saved state")

    before = {
        number: signal.signal(number, ask if alone or number != signal.SIGINT else signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
