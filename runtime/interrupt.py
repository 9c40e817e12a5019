"""Signals that end a run. SIGTERM, which containers and service managers send, has the effect of Ctrl-C."""

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
"""A signal so soon after the first counts as the same one: `timeout` and a terminal may each send it."""
CLEAN_SECONDS = 2.0
"""After a second signal, the process has this long to end by itself."""


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt in the block. Outside the main thread, this does nothing.

    Process 1 of a container ignores signals for which it has no handler. Without this, `docker stop` would wait and
    then kill the process.
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
    """Let a second SIGTERM or Ctrl-C end the process even during a long call of a native library.

    A handler in Python runs only when such a call returns. So a thread reads the wakeup descriptor, to which Python
    writes the number of each signal as it arrives.
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
    """End the process CLEAN_SECONDS after a second signal, without cleaning up; return when the pipe is closed."""
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
"""A signal to a forked worker, such as a data loader's, must not reach the wakeup descriptor of its parent."""


@contextlib.contextmanager
def defer_signals(*, alone: bool = True, told: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or Ctrl-C into a request, so that the block can end where it can be resumed.

    Yields a function that returns whether the block was asked to end. A second signal raises KeyboardInterrupt at
    once; a signal within ONE_SIGNAL_SECONDS counts as the first. Outside the main thread, no signal is held back.

    Args:
        alone: whether no other process does this work. If False, Ctrl-C, which every process gets, is ignored here
            and left to the parent.
        told: whether to report the first signal on stderr.

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
