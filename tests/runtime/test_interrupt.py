"""Signals that end a command: the first when Python runs again, a second one at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.interrupt import ONE_SIGNAL_SECONDS, defer_signals, sigterm_interrupts

BUSY = """
import hashlib, time
from runtime.interrupt import sigterm_interrupts
with sigterm_interrupts():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # one call of C, for many minutes
"""
FORKING = """
import os, signal, time
from runtime.interrupt import sigterm_interrupts
with sigterm_interrupts():
    print("busy", flush=True)
    for _ in range(2):
        if not (worker := os.fork()):
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            time.sleep(60)
        time.sleep(0.6)
        os.kill(worker, signal.SIGTERM)
        os.waitpid(worker, 0)
        time.sleep(0.6)
    time.sleep(2.5)
"""


def start(program):
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # else it may be ignored
    )
    assert process.stdout.readline() == "busy\n"
    return process


def wait_until_busy(pid, ticks=30):
    """Wait for so many ticks of the processor's time in the process: by then it is in its one call."""
    end = spent(pid) + ticks
    while spent(pid) < end:
        time.sleep(0.01)


def spent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_process_within_a_call_that_does_not_return(second, code):
    with start(BUSY) as process:
        try:
            wait_until_busy(process.pid)
            for _ in range(2):  # as `timeout` sends one twice
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
            time.sleep(3.5)
            assert process.poll() is None
            process.send_signal(second)
            assert process.wait(timeout=20) == code
        finally:
            process.kill()


def test_signals_to_forked_workers_end_no_one_else():
    with start(FORKING) as process:
        try:
            assert process.wait(timeout=30) == 0, process.stderr.read()
        finally:
            process.kill()


def test_nothing_of_it_is_left_after_the_block():
    before = len(os.listdir("/proc/self/fd"))
    with sigterm_interrupts():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    for _ in range(100):
        if len(os.listdir("/proc/self/fd")) == before:
            break
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_sent_twice_asks_once_and_a_later_one_ends():
    with defer_signals() as asked:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        time.sleep(ONE_SIGNAL_SECONDS)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
