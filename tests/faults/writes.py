"""A fault at each write of a command, those that lie far from each other first."""

from tests.faults import forked
from tests.faults.library import FAULTS
from tests.faults.trial import RANDOM

NEVER = 1 << 62


def writes(bench, fault):
    """Return how many writes of a command a fault can begin at."""
    bench.lay()
    return forked.run(bench.command.words, bench.place, bench.scratch, FAULTS[fault], NEVER).counted


def spread(count):
    """Return the numbers from 1 to `count`, so that any first few of them are evenly spread: van der Corput's order."""
    bits = max(count - 1, 1).bit_length()
    reversed_bits = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [number + 1 for number in reversed_bits if number < count]


def disturb(bench, right, fault, number, count):
    """Let a fault begin at a write with a number, and judge; return what is to be reported, None where none is left."""
    bench.lay()
    kind = FAULTS[fault]
    ended = forked.run(bench.command.words, bench.place, bench.scratch, kind, number)
    if not ended.felt:
        return None
    how = bench.judged(ended, right, cleans_up=kind.cleans_up)
    return {"writes": count, "felt": RANDOM.sub("*", ended.felt), "how": how}
