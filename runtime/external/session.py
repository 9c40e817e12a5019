"""A judge's process as a `Judge` that attacks can query: it gives logits, and has no gradient."""

from __future__ import annotations

import shlex
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import EngineFault, UsageFault
from runtime.external import BACKEND
from runtime.external.process import JudgeProcess
from runtime.external.protocol import MOST_JSON, decode, encode, hello, most_bytes, read_handshake
from runtime.files import sha256
from runtime.session import Batching, Judge, SessionCard
from runtime.spec import JudgeCommand
from runtime.terminal.log import log
from runtime.words import printable

if TYPE_CHECKING:
    from runtime.session import GraphFacts

START = 300.0
"""Seconds within which a judge must be ready. It may have to load a model onto its device, or to compile it."""


class ExternalJudge(Judge):
    """A classifier that a command runs.

    Args:
        command: the command line, split into words as a shell does; no shell runs it.
        artifact: SHA-256 of the graph that the command runs.
        facts: facts about that graph.
        precision: name of that graph in the bundle.
        image: shape of one image, (C, H, W).
        classes: number of classes, K.
        start: seconds within which the process must be ready.

    Raises:
        UsageFault: the command cannot be split into words, or the program does not exist.
        BadAnswer: the process does not follow the protocol.
        JudgeFault: the process ends, or is not ready in time.

    """

    def __init__(
        self,
        command: str,
        *,
        artifact: str,
        facts: GraphFacts,
        precision: str,
        image: tuple[int, int, int],
        classes: int,
        start: float = START,
    ) -> None:
        words = command_words_of(command)
        files = digests(words)
        self._classes = classes
        self._process: JudgeProcess | None = JudgeProcess(words)
        try:
            self._said = read_handshake(self._process.exchange(hello(image, classes), MOST_JSON, start))
            self._card = self._described(words, files, artifact, facts, precision)
            log.info(f"judge: {self._said.name} {self._said.version}, reads {self._said.images}")
        except BaseException:  # Ctrl-C, too
            self._process.close()
            raise

    def _described(
        self, words: list[str], files: dict[str, str], artifact: str, facts: GraphFacts, precision: str
    ) -> SessionCard:
        """Return the card, from the judge's handshake and the graph's facts."""
        said = self._said
        if said.images == "uint8":
            facts = replace(facts, takes_bytes=True, staircases=tuple(dict.fromkeys((*facts.staircases, "Round"))))
        return SessionCard(
            artifact,
            precision,
            BACKEND,
            said.name,
            device=said.device or said.name,
            differentiable=False,
            rounds_apart=True,
            facts=replace(facts, quantised=facts.quantised or said.quantised),
            judge_command=JudgeCommand(
                command=shlex.join(words), name=said.name, version=said.version, images=said.images, files=files
            ),
        )

    def logits(self, x: Any) -> Any:
        """Return the judge's logits, float32 [B, K]. A judge that reads bytes gets the points rounded to bytes.

        Raises:
            BadAnswer: the answer does not contain the logits.
            JudgeFault: the judge ends, fails, or takes too long.
            OutOfMemory: the judge reports that the batch does not fit into memory.

        """
        n, most = len(x), self._said.batch
        return np.concatenate([self._ask(x[start : start + most]) for start in range(0, max(n, 1), most)])

    def _ask(self, x: Any) -> Any:
        if self._process is None:
            raise EngineFault("this session is closed", hint="open it again")
        question = encode(x, self._said.images)
        answer = self._process.exchange(question, most_bytes(len(x), self._classes), self._said.seconds)
        return decode(answer, len(x), self._classes)

    def batching(self, image: tuple[int, ...]) -> Batching:
        """Return the batches that suit it: no larger than the judge takes."""
        return Batching(self._said.batch)

    def card(self) -> SessionCard:
        """Return the card, with what the judge reported of itself."""
        return self._card

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()


def command_words_of(command: str) -> list[str]:
    """Return the words of a command.

    Raises:
        UsageFault: the command is empty, has an unbalanced quote, or has characters that cannot be printed.

    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageFault(f"--judge-command cannot be read: {error}", hint="quote it as for a shell") from None
    if not words or not words[0]:
        raise UsageFault("--judge-command names no program", hint='--judge-command "python judge.py model.tflite"')
    if any(printable(word) != word for word in words):
        raise UsageFault("--judge-command holds characters that cannot be printed", hint="put them into a script")
    return words


def digests(words: list[str]) -> dict[str, str]:
    """Return the SHA-256 of each word that names a file; the first word is also looked up in PATH."""
    found: dict[str, str] = {}
    for word in words:
        path = Path(shutil.which(word) or word) if word is words[0] else Path(word)
        with suppress(OSError):  # a word may be longer than any file name, or name a file that cannot be read
            if path.is_file():
                found[word] = sha256(path.read_bytes())
    return found
