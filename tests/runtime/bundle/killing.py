"""Kill installations at random moments, and check after each what must always hold.

    python -m tests.runtime.bundle.killing PLACE KILLS SEED BUNDLE...

A process of its own, so that it can fork: it has no threads, and imports nothing twice. BUNDLES are versions 1, 2, ...
of one name. It goes on until KILLS installations were killed before their end: how many end first is the machine's.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from runtime.bundle.install import install
from runtime.bundle.opening import open_bundle
from runtime.bundle.rollback import read_state
from runtime.errors import Rollback


def version_in_use(to):
    """Return the version of `current`, 0 for none; whole, and never ahead of what is on record."""
    if not (to / "current").is_symlink():
        return 0
    version = open_bundle(to / "current").manifest.version
    assert read_state(to).accepted["tiny"].version >= version
    if (to / "previous").is_symlink():
        open_bundle(to / "previous")
    return version


def installed_before_killed(to, bundles, delay):
    """Install all in turn in a fork, kill it after `delay` seconds, and return whether it was done before."""
    child = os.fork()
    if not child:
        for bundle in bundles:
            install(bundle, to, state=to)
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def main(place, kills, seed, *paths):
    rng, bundles = random.Random(int(seed)), [open_bundle(Path(path)) for path in paths]
    killed, device, reached, accepted = 0, 0, 0, 0
    while killed < int(kills):
        to = Path(place) / str(device)
        killed += not installed_before_killed(to, bundles[max(accepted - 1, 0) :], rng.uniform(0, 0.1))
        in_use = version_in_use(to)
        on_record = max((entry.version for entry in read_state(to).accepted.values()), default=0)
        assert in_use >= reached
        assert on_record >= accepted
        reached, accepted = in_use, on_record
        for older in bundles[: max(accepted - 1, 0)]:
            try:
                install(older, to, state=to)
            except Rollback:
                continue
            raise AssertionError(f"went back to {older.path}")
        if accepted == len(bundles):
            install(bundles[-1], to, state=to)
            assert version_in_use(to) == len(bundles)
            device, reached, accepted = device + 1, 0, 0


if __name__ == "__main__":
    main(*sys.argv[1:])
