"""All trials of one output directory: each a line of trials.jsonl; only what ended wrong is tried again."""

import json
import shutil
import subprocess
from functools import cache
from importlib import import_module

from tests.faults import fleet, forked, inputs
from tests.faults.commands import COMMANDS
from tests.faults.kills import kill
from tests.faults.trial import KILLED, WRONG, Bench, Wrong
from tests.faults.writes import disturb, spread, writes
from tests.paths import ROOT

TRIALS, WORK = "trials.jsonl", "work"
KEY = ("part", "command", "fault", "number")
LATE = 2
"""Some kills come after the end of a command, and are no kills: so many trials for each that is wanted, at most."""


class Session:
    """Where trials are kept, and where they are made: in a directory beside, which is made anew.

    Args:
        out: of trials.jsonl.
        work: where the commands run; None: in `out`.

    """

    def __init__(self, out, work=None):
        self.path = out / TRIALS
        out.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.trials = {tuple(trial[name] for name in KEY): trial for trial in map(json.loads, lines)}
        self.commit = commit()
        self._place = ((work or out) / WORK).resolve()
        shutil.rmtree(self._place, ignore_errors=True)

    @property
    def file_system(self):
        """Return the type of the file system that the commands ran on."""
        self._places()
        told = subprocess.run(["stat", "-f", "-c", "%T", self._place], capture_output=True, text=True)
        return told.stdout.strip()

    def close(self):
        """Remove where the commands ran."""
        shutil.rmtree(self._place, ignore_errors=True)

    @cache  # noqa: B019 # one session a process
    def bench(self, name):
        """Return where a command is tried, what comes of it undisturbed, and the seconds that it takes."""
        command = COMMANDS[name]
        import_module(command.module)
        command.ready()
        given, place, scratch = self._places()
        inputs.need(given, command.given, scratch)
        bench = Bench(name, given, place, scratch)
        bench.undisturbed()
        forked.import_what_it_did(scratch)
        return bench, *bench.undisturbed()

    def kill(self, name, count):
        """Kill a command until so many kills came before its end."""
        came = 0
        for number in range(1, LATE * count + 1):
            how = self._once("kills", name, "SIGKILL", number, lambda number=number: kill(*self.bench(name), number))
            came += how in (KILLED, WRONG)
            if came == count:
                return

    @cache  # noqa: B019 # one session a process
    def writes(self, name, fault):
        """Return the numbers of the writes of a command that a fault can begin at, evenly spread ones first."""
        return spread(writes(self.bench(name)[0], fault))

    def disturb(self, name, fault, numbers):
        """Let a fault begin at each of these writes of a command."""
        bench, right, _ = self.bench(name)
        count = len(self.writes(name, fault))
        for number in numbers:
            self._once("writes", name, fault, number, lambda n=number: disturb(bench, right, fault, n, count))

    def fleet(self, rounds):
        """Let a fleet work on one state directory so many times, every second time with kills among it."""
        import_module("runtime.commands.bundle")
        import_module("runtime.commands.verify")
        for number in range(1, rounds + 1):
            kills = fleet.KILLED_OF_THEM * (number % 2 == 0)
            fault = f"SIGKILL to {kills} of {fleet.PROCESSES}" if kills else "none"
            self._once(
                "fleet", "install, verify", fault, number, lambda n=number, k=kills: fleet.attack(*self._places(), n, k)
            )

    def mutate(self, kind, count):
        """Read so many mutations of one kind."""
        from tests.faults.mutations import KINDS

        def trial():
            try:
                seen = KINDS[kind](self._places()[0], count)
            except AssertionError as error:
                raise Wrong(str(error)) from None
            return {"how": ", ".join(f"{n} {how}" for how, n in sorted(seen.items())), "mutations": seen.total()}

        self._once("mutations", kind, "edited", count, trial)

    def _places(self):
        """Return where inputs lie, where they are worked on, and where is kept what is said."""
        places = tuple(self._place / name for name in ("given", "place", "scratch"))
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        return places

    def _once(self, part, command, fault, number, trial):
        """Make a trial that was not made yet, and keep it; return how it ended, None where there was nothing to try."""
        key = (part, command, fault, number)
        if self.trials.get(key, {"how": WRONG})["how"] == WRONG:
            try:
                found = trial() or {"how": None}
            except Wrong as wrong:
                found = {"how": WRONG, "wrong": str(wrong)}
            record = {**dict(zip(KEY, key, strict=True)), **found, "commit": self.commit}
            self.trials[key] = record
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            if found["how"] == WRONG:
                print(f"{part} {command} {fault} {number}: {found['wrong']}", flush=True)
        return self.trials[key]["how"]


def commit():
    """Return the commit that is tried, and whether anything was changed since."""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"
