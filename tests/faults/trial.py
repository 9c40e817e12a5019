"""A command that was disturbed: whether it ended as it should, and whether the same command then ends right."""

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import DEFECT, UsageFault
from runtime.files import sha256
from tests.faults import forked, inputs
from tests.faults.commands import COMMANDS, OUT, digest, tree

WRONG = "wrong"
FINISHED, KILLED, TYPED = "finished all the same", "killed", "typed error"
TIDIED = "finished, and the same command then removes what it could not"
FOREIGN = {"tmp/.ses"}
"""What ONNX Runtime leaves in the directory of temporary files, in every process."""
RANDOM = re.compile(r"(?<=\.)[0-9a-f]{8}(?=$|/)|(?<=\.)[a-z0-9_]{8}(?=$|/)|(?<=/tmp)\w{8}(?=$|/)")
"""The random part of a name."""


class Wrong(Exception):
    """Something that must not come of a fault."""


@dataclass(frozen=True)
class Bench:
    """A command, where its inputs lie, and where it is tried; `proven` holds states that it was seen to go on from."""

    name: str
    given: Path
    place: Path
    scratch: Path
    proven: set = field(default_factory=set)

    @property
    def command(self):
        return COMMANDS[self.name]

    @property
    def out(self):
        return self.place / OUT

    def lay(self):
        inputs.lay(self.given, self.command.given, self.place)

    def undisturbed(self):
        """Return what comes of it, and the seconds that it takes."""
        self.lay()
        ended = forked.run(self.command.words, self.place, self.scratch)
        if ended.code:
            raise Wrong(f"undisturbed it exits with {ended.code}: {ended.said}")
        return self.command.result(self.out), ended.seconds

    def judged(self, ended, right, *, cleans_up):
        """Return in words how it ended; raise `Wrong` where it should not have, or where it cannot be gone on with."""
        how = how_it_ended(ended)
        self._look()
        removing = ended.felt.startswith(("unlink", "rmdir"))  # then it is the removal that failed
        if cleans_up and not removing and (left := self._left()):
            raise Wrong(f"{how}, and leaves {', '.join(left)}")
        if how == FINISHED and not self._holds(right, extra=removing):
            raise Wrong(f"exits with 0, and not all is there: {self._differing(right)}")
        if how == FINISHED and removing and not self._is(right):
            how = TIDIED
        if how != FINISHED:
            self._go_on(how, right)
        elif not removing and (left := self._left()):
            raise Wrong(f"{how}, and leaves {', '.join(left)}")
        return how

    def _go_on(self, how, right):
        """Check that the same command ends right; from a state that is known to, it is not tried again.

        Where all is there already, a command that makes a new directory may say so: exit code 2.
        """
        state = self._state()
        if state in self.proven:
            return
        done = self._is(right)
        again = forked.run(self.command.words, self.place, self.scratch)
        if again.code and not (done and again.code == UsageFault.exit_code):
            raise Wrong(f"{how}; the same command then exits with {again.code}: {last_lines(again.said)}")
        if not self._is(right):
            raise Wrong(f"{how}; the same command then ends otherwise: {self._differing(right)}")
        if left := self._left():
            raise Wrong(f"{how}, and in the end {', '.join(left)} stays")
        self.proven.add(state)

    def _state(self):
        """Return all that lies in its place, in a form that is equal for what differs in times and random names."""
        found = []
        for path in sorted(self.place.rglob("*")):
            name = RANDOM.sub("*", f"/{path.relative_to(self.place)}")
            found.append((name, "directory" if path.is_dir() and not path.is_symlink() else _said(path)))
        return tuple(sorted(found))

    def _holds(self, right, *, extra):
        """Return whether all that should come of it is there; with `extra`, more may lie beside it."""
        found = self.command.result(self.out)
        return right.items() <= found.items() if extra else found == right

    def _is(self, right):
        try:
            return self.command.result(self.out) == right
        except Exception:
            return False

    def _differing(self, right):
        found = self.command.result(self.out)
        return ", ".join(sorted(name for name in found.keys() | right.keys() if found.get(name) != right.get(name)))

    def _look(self):
        """Check what must hold at any moment: of what it writes, and of what it was given."""
        try:
            self.command.sound(self.out)
        except Exception as error:
            raise Wrong(f"half-written: {type(error).__name__}: {error}") from None
        for name in self.command.given:
            if name != "device" and tree_of(self.place / name) != tree_of(self.given / name):
                raise Wrong(f"its input {name} is no longer what it was")

    def _left(self):
        """Return the names of files that only a half-done work has."""
        found = (*self.place.rglob(".*"), *self.place.glob("tmp?*"), *(self.place / "tmp").iterdir())
        return sorted({str(path.relative_to(self.place)) for path in found} - FOREIGN)


def _said(path):
    try:
        return digest(path)
    except Exception:  # cut short
        return sha256(path.read_bytes())


def tree_of(path):
    return tree(path) if path.is_dir() else path.read_bytes()


def how_it_ended(ended):
    """Return in words how a command ended; raise `Wrong` where that says that it was not prepared for the fault."""
    if ended.hung:
        raise Wrong(f"did not end within {forked.PATIENCE:g} s")
    if "Traceback" in ended.said or ended.code == DEFECT:
        raise Wrong(f"exit code {ended.code} with a traceback: {last_lines(ended.said, 40)}")
    if ended.code == 0:
        return FINISHED
    if ended.code == -signal.SIGKILL:
        return KILLED
    if ended.code < 0:
        return f"ended by {signal.Signals(-ended.code).name}"
    if "error: " not in ended.said or "hint: " not in ended.said:
        raise Wrong(f"exit code {ended.code} without error and hint: {last_lines(ended.said)}")
    return f"{TYPED}, exit code {ended.code}"


def last_lines(text, count=4):
    return " / ".join(text.strip().splitlines()[-count:])
