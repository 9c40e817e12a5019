"""A fault at each write of a command: at the first, at the second, until there are no more."""

from tests.faults import forked
from tests.faults.library import FAULTS
from tests.faults.trial import RANDOM


def disturb(bench, right, fault, number):
    """Let a fault begin at a write with a number, and judge; return what is to be reported, None where none is left."""
    bench.lay()
    kind = FAULTS[fault]
    ended = forked.run(bench.command.words, bench.place, bench.scratch, kind, number)
    if not ended.felt:
        return None
    how = bench.judged(ended, right, cleans_up=kind.cleans_up)
    return {"felt": RANDOM.sub("*", ended.felt), "how": how}
