"""SIGKILL at random instants between the start of a command and its end."""

import os
import random
import signal
import time

from tests.faults import forked
from tests.faults.trial import KILLED

TRIES = 4
"""A kill that comes too late is no kill: so many trials for each, at most."""


def kill(bench, right, seconds, number):
    """Kill a command once and judge what it left; return what is to be reported, None where it had ended before."""
    instant = random.Random(f"{bench.name} {number}").uniform(0, seconds)
    for _ in range(TRIES):
        bench.lay()
        began = time.monotonic()
        process = forked.start(bench.command.words, bench.place, bench.scratch)
        time.sleep(max(instant - (time.monotonic() - began), 0))
        os.killpg(process, signal.SIGKILL)
        ended = forked.wait(process, bench.scratch, began)
        if ended.code == -signal.SIGKILL:
            break
        instant *= 0.8
    how = bench.judged(ended, right, cleans_up=False)
    return {"instant": round(instant, 4), "of": round(seconds, 4), "how": how, "killed": how == KILLED}
