"""Fifty processes at once on one state directory: what was accepted never goes back, and nothing is half-written."""

import os
import random
import signal
import time
from collections import Counter

from runtime.bundle.install import CURRENT, PREVIOUS
from runtime.bundle.opening import open_bundle
from runtime.bundle.rollback import read_state
from runtime.errors import Rollback
from tests.faults import forked, inputs
from tests.faults.trial import KILLED, Wrong, how_it_ended

PROCESSES, DEVICES, NEWEST = 50, 5, 6
KILLED_OF_THEM = 10
SECONDS = 5.0
"""So long the record is watched; kills come in the first third."""
BUNDLES = tuple("bundle" if version == 1 else f"bundle-{version}" for version in range(1, NEWEST + 1))
REFUSED = Rollback.exit_code


def attack(given, place, scratch, number, kills):
    """Let fifty processes install and verify at once, `kills` of them be killed, and judge; return how they ended."""
    inputs.need(given, BUNDLES, scratch)
    inputs.lay(given, BUNDLES, place)
    chance = random.Random(number)
    began, started = time.monotonic(), []
    for process in range(PROCESSES):
        words, own = _words(chance, process), scratch / str(process)
        own.mkdir(exist_ok=True)
        started.append((forked.start(words, place, own), own, words))
    moments = sorted((chance.uniform(0, SECONDS / 3), each[0]) for each in chance.sample(started, kills))
    _watch(place / "state", began, moments)
    ends = Counter()
    for process, own, words in started:
        ended = forked.wait(process, own, began)
        how = how_it_ended(ended)
        if ended.code not in (0, REFUSED) and not (how == KILLED and kills):
            raise Wrong(f"{' '.join(words)}: {how}: {ended.said}")
        ends[how] += 1
    _settle(place, scratch)
    return {"how": ", ".join(f"{count} {how}" for how, count in sorted(ends.items())), "processes": PROCESSES}


def _words(chance, process):
    newer = process * NEWEST // PROCESSES + chance.choice((-1, 0, 1))  # mostly the later, the newer
    bundle = BUNDLES[min(max(newer, 0), NEWEST - 1)]
    if process % 5 < 3:
        return ["install", bundle, "--to", f"device-{process % DEVICES}", "--state", "state"]
    return ["verify", bundle, "--attacks", "fgsm", "--state", "state", "--out", f"run-{process}"]


def _watch(state, began, moments):
    """Read what is on record again and again while processes are killed: it can always be read, and only grows."""
    reached = 0
    while (seconds := time.monotonic() - began) < SECONDS:
        while moments and moments[0][0] <= seconds:
            os.killpg(moments.pop(0)[1], signal.SIGKILL)
        version = _on_record(state)
        if version < reached:
            raise Wrong(f"what was accepted went back from {reached} to {version}")
        reached = version
        time.sleep(0.02)
    for _, process in moments:
        os.killpg(process, signal.SIGKILL)


def _on_record(state):
    entry = read_state(state).accepted.get("tiny")
    return entry.version if entry else 0


def _settle(place, scratch):
    """Check every device against the record, and that the newest version goes onto each of them."""
    on_record = _on_record(place / "state")
    for number in range(DEVICES):
        device = place / f"device-{number}"
        for link in (CURRENT, PREVIOUS):
            if (device / link).is_symlink() and open_bundle(device / link).manifest.version > on_record:
                raise Wrong(f"{device.name} is ahead of what is on record, {on_record}")
        ended = forked.run(["install", BUNDLES[-1], "--to", device.name, "--state", "state"], place, scratch)
        if ended.code or open_bundle(device / CURRENT).manifest.version != NEWEST:
            raise Wrong(f"version {NEWEST} does not go onto {device.name}: {ended.said}")
    if _on_record(place / "state") != NEWEST:
        raise Wrong(f"version {NEWEST} is installed, and {_on_record(place / 'state')} on record")
    left = [str(path.relative_to(place)) for device in ("device-*", "state") for path in place.glob(f"{device}/**/.*")]
    if left:
        raise Wrong(f"{', '.join(left)} stays")
