"""SIGTERM, by which containers and service managers end a process, as an interrupt: Ctrl-C and it end alike."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

from runtime.terminal.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def defer_signals(*, alone: bool = True, told: bool = True) -> Iterator[Callable[[], bool]]:
    """Let the first SIGTERM or Ctrl-C only ask the block to end, for it to do so where it can go on from.

    Yields what tells whether that was asked. A second signal raises KeyboardInterrupt at once. Outside the main thread
    nothing is held back.

    Args:
        alone: whether this is the only process of its work; others leave Ctrl-C, which all get, to their parent.
        told: whether to say so on stderr.

    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
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
