"""Runs a judge's process: starts it, enforces a time limit on each answer, and always ends it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from runtime.errors import BadAnswer, EdgeproofError, JudgeFault, UsageFault
from runtime.external.protocol import LENGTH, SEE, TO_STDERR, shown
from runtime.interrupt import defer_signals
from runtime.terminal.log import log
from runtime.words import duration, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

PIECE = 2**16
"""The most bytes to read or write at once."""
TAIL, LINES, WIDEST = 4096, 5, 200
"""The bytes of stderr that are kept, the lines of them that are shown, and the characters per line."""
LOOK = 0.1
"""Seconds between checks whether the process has ended: another process may hold its stdout open."""
FAREWELL, GRACE, DEATH = 5.0, 2.0, 5.0
"""Seconds that the process has to end after its stdin is closed, after SIGTERM, and after SIGKILL."""


class JudgeProcess:
    """A process that answers each frame on its stdin with a frame on its stdout.

    It leads its own session, so Ctrl-C in a terminal reaches only edgeproof, which then ends it and its children.
    After an error in an exchange, it gets no further frame, because its position in the stream is unknown.

    Args:
        words: the command and its arguments; the program is looked up in PATH.

    Raises:
        UsageFault: there is no such program.

    """

    def __init__(self, words: Sequence[str]) -> None:
        with defer_signals(told=False) as asked_to_end:  # no signal between its start and `_left`
            self._process = _started(words)
            self._left = weakref.finalize(self, _kill, self._process)
        if asked_to_end():
            self._left()
            raise KeyboardInterrupt
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._stdin, self._stdout, self._stderr = (pipe for pipe in pipes if pipe)
        self._tail = bytearray()
        self._usable, self._why = True, ""
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
        for pipe in (self._stdout, self._stderr):
            self._selector.register(pipe, selectors.EVENT_READ)

    def exchange(self, question: bytes, most: int, seconds: float) -> bytes:
        """Send a frame, and return the content of the frame that answers it.

        Args:
            question: the content of the frame.
            most: the most bytes of an answer.
            seconds: the time limit for the whole exchange.

        Raises:
            BadAnswer: the process writes before it is asked, or announces more than `most` bytes.
            JudgeFault: the process ends, closes a pipe, breaks off its answer, or exceeds the time limit.

        """
        if not self._usable:
            raise JudgeFault(
                f"the judge's process is no longer used{self._why}", hint="begin again, or continue with --resume"
            )
        self._usable = False
        try:
            answer = self._answer_to(question, most, seconds)
        except EdgeproofError as fault:
            self._why = f": {fault.message}"
            raise
        self._usable = True
        return answer

    def _answer_to(self, question: bytes, most: int, seconds: float) -> bytes:
        """Send and receive; raises as `exchange` does."""
        deadline = time.monotonic() + seconds
        self._send(LENGTH.pack(len(question)), question, deadline=deadline, seconds=seconds)
        (length,) = LENGTH.unpack(prefix := self._receive(LENGTH.size, deadline, seconds))
        if length > most:
            beginning = prefix + self._at_hand()
            raise BadAnswer(
                f"the judge announces an answer of {length} bytes, more than {most}: it begins {shown(beginning)}"
                + self.last_words(),
                hint=TO_STDERR,
            )
        return self._receive(length, deadline, seconds)

    def last_words(self) -> str:
        """Return the last lines of its stderr, to append to a message; empty if there are none."""
        lines = [printable(line.strip())[:WIDEST] for line in self._tail.decode("utf-8", "replace").splitlines()]
        last = [line for line in lines if line][-LINES:]
        return f"; its stderr ends: {' / '.join(last)}" if last else ""

    def close(self) -> None:
        """End the process and its children: close its stdin, then send signals. A second call does nothing."""
        if not self._left.alive:
            return
        try:
            with suppress(OSError):
                self._stdin.close()
            if self._usable and self._ends_within(FAREWELL):
                return
            _signal(self._process, signal.SIGTERM)
            self._ends_within(GRACE)
        finally:
            self._usable = False
            self._left()
            self._selector.close()

    def _send(self, *parts: bytes, deadline: float, seconds: float) -> None:
        """Write the parts. Output of the process before the whole request is written is an error."""
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        try:
            for part in parts:
                left = memoryview(part)
                while left:
                    self._wait(deadline, seconds)
                    if noise := self._at_hand():
                        raise BadAnswer(
                            f"the judge wrote to stdout before it was asked: {shown(noise)}{self.last_words()}",
                            hint=TO_STDERR,
                        )
                    with suppress(BlockingIOError):
                        left = left[os.write(self._stdin.fileno(), left[:PIECE]) :]
        except BrokenPipeError:
            raise self._ended("reads no more") from None
        finally:
            self._selector.unregister(self._stdin)

    def _receive(self, length: int, deadline: float, seconds: float) -> bytes:
        """Read exactly this many bytes."""
        answer = bytearray()
        while len(answer) < length:
            gone = self._has_ended()  # checked before reading, so that nothing it wrote is missed
            data = self._read(length - len(answer))
            if data:
                answer += data
            elif data is None and not gone:
                self._wait(deadline, seconds)
            else:
                raise self._ended(f"broke off after {len(answer)} of {length} bytes" if answer else "did not answer")
        return bytes(answer)

    def _read(self, most: int) -> bytes | None:
        """Return what its stdout has now; empty at the end of the stream, None if nothing has come yet."""
        try:
            return os.read(self._stdout.fileno(), min(PIECE, most))
        except BlockingIOError:
            return None

    def _at_hand(self) -> bytes:
        """Return what its stdout has now, or nothing."""
        return self._read(PIECE) or b""

    def _wait(self, deadline: float, seconds: float) -> None:
        """Wait at most LOOK seconds until a pipe is ready; keep what came on stderr."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise JudgeFault(
                f"the judge took more than {duration(seconds)} to answer{self.last_words()}",
                hint=f"a slow one says in its handshake how many `seconds` an answer may take; {SEE}",
            )
        for key, _ in self._selector.select(min(left, LOOK)):
            if key.fileobj is self._stderr:
                self._keep_stderr()

    def _keep_stderr(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._stderr.fileno(), PIECE)
            self._tail = (self._tail + data)[-TAIL:]
            if not data:
                self._selector.unregister(self._stderr)

    def _ended(self, did: str) -> JudgeFault:
        """Return the error that says how the process ended, or that it closed a pipe."""
        ended = self._ends_within(1.0)
        how = f"the judge {did}"
        if ended and ended.si_code == os.CLD_EXITED:
            how += f": it ended with exit code {ended.si_status}"
        elif ended:
            how += f": it was ended by {signal.Signals(ended.si_status).name}"
        return JudgeFault(how + self.last_words(), hint="run the command by itself to see why; then --resume goes on")

    def _has_ended(self) -> os.waitid_result | None:
        """Return how the process ended, None while it runs. It is not reaped, so its number is not reused."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def _ends_within(self, seconds: float) -> os.waitid_result | None:
        """Wait this long for the process to end, reading all that it writes; return how it ended, else None."""
        deadline = time.monotonic() + seconds
        while (ended := self._has_ended()) is None and time.monotonic() < deadline:
            self._drain()
            time.sleep(LOOK / 10)
        self._drain()
        return ended

    def _drain(self) -> None:
        """Read what the process writes, so that a full pipe does not keep it from ending."""
        if self._stderr in self._selector.get_map():
            self._keep_stderr()
        self._at_hand()


def _environment() -> dict[str, str]:
    """Return the environment, without PYTHONSAFEPATH where only edgeproof set it: it would hide a script's modules."""
    ours = () if getattr(sys.flags, "safe_path", False) else ("PYTHONSAFEPATH",)
    return {name: value for name, value in os.environ.items() if name not in ours}


def _started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command without a shell, as the leader of a session."""
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(  # noqa: S603
            words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, env=_environment()
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageFault(
            f"--judge-command {printable(words[0])!r} cannot be started: {reason}",
            hint="name a program that can be run, with its path or in PATH",
        ) from None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and its children. It is not reaped yet, so its number cannot belong to another process."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, reap it, and close its pipes. It also runs if nobody closed the judge."""
    _signal(process, signal.SIGKILL)
    try:
        process.wait(DEATH)
    except subprocess.TimeoutExpired:
        log.warning(f"the judge's process {process.pid} does not end, not even by SIGKILL")
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(OSError):
                pipe.close()
