"""Shows the progress of a training run, as a bar on a terminal or as a line per minute and epoch; writes its logs."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.models.checkpoint import Figures
from pipeline.runs.directory import METRICS
from pipeline.runs.state import START_ANEW, Standing
from pipeline.tracking.trackers import Trackers
from runtime.errors import BadInput
from runtime.files import write_atomic
from runtime.terminal.log import is_quiet, log
from runtime.terminal.progress import LINE_SECONDS
from runtime.words import clock, percent


class TrainingLog:
    """Shows progress on stderr, and writes metrics.jsonl and tensorboard/ in the run directory.

    Args:
        directory: the run directory.
        steps, steps_per_epoch: the number of optimiser steps in the run, and in one epoch.
        batch: images in a step, for the rate.
        standing: the progress of the run so far.
        trackers: also get all figures.

    """

    def __init__(
        self,
        directory: Path,
        *,
        steps: int,
        steps_per_epoch: int,
        batch: int,
        standing: Standing,
        trackers: Trackers,
    ) -> None:
        self.console = Console(stderr=True)
        self.steps, self.steps_per_epoch, self.batch = steps, steps_per_epoch, batch
        self.lines, self.busy_seconds = standing.lines, standing.busy_seconds
        self._said = time.monotonic()
        self._metrics = (directory / METRICS).open("a")
        self._hook, threading.excepthook = (
            threading.excepthook,
            self._thread_failed,
        )  # TensorBoard's thread starts to write at once
        self._board = TensorBoardLogger(directory, "tensorboard", "", purge_step=standing.steps + 1)
        self._trackers = trackers
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}{task.fields[reached]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=is_quiet() or not self.console.is_terminal,
        )
        epoch = standing.steps // steps_per_epoch + 1
        self._task = self._bar.add_task("train", total=steps, completed=standing.steps, epoch=epoch, reached="")
        self._first = standing.steps + 1

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._metrics.close()
        try:
            self._board.finalize("")
        finally:
            threading.excepthook = self._hook

    @property
    def images_per_second(self) -> float:
        """The mean rate of all steps so far, without the time of evaluation."""
        return self._bar.tasks[0].completed * self.batch / max(self.busy_seconds, 1e-9)

    def step(self, number: int, *, loss: float, seconds: float) -> None:
        """Record optimiser step `number`, counted from 1."""
        self.busy_seconds += seconds
        epoch = (number - 1) // self.steps_per_epoch + 1
        self._bar.update(self._task, completed=number)
        reached = f"  loss {loss:.4f}  {self.images_per_second:.0f} images/s"
        self._bar.update(self._task, epoch=epoch, reached=reached)
        self._write({"step": number, "epoch": epoch, "loss": loss, "seconds": round(seconds, 4)})
        self._tell({"train/loss": loss}, number)
        due = number == self._first or time.monotonic() - self._said >= LINE_SECONDS
        if due and not self.console.is_terminal:
            left = clock(self.busy_seconds / number * (self.steps - number))
            self.say(f"epoch {epoch} step {number}/{self.steps}{reached}, {left} left")

    def figures(self, figures: Figures) -> None:
        """Record the figures of the hold-out after an epoch."""
        measured = {"clean": figures.clean, "pgd": figures.pgd}
        line = f"epoch {figures.epoch}: hold-out clean {percent(figures.clean)}, PGD-10 {percent(figures.pgd)}"
        if figures.teacher_entropy is not None:
            measured["teacher_entropy"] = figures.teacher_entropy
            line += f"; where it errs the teacher's entropy is {figures.teacher_entropy:.2f} nats"
        self._write({"epoch": figures.epoch} | {f"holdout_{name}": value for name, value in measured.items()})
        self._tell({f"holdout/{name}": value for name, value in measured.items()}, figures.epoch)
        self.say(line)

    def say(self, line: str) -> None:
        """Log one line."""
        log.info(line)
        self._said = time.monotonic()

    def sync(self) -> None:
        """Write the log to disk, so that a saved state never counts lines that a power cut removes."""
        os.fsync(self._metrics.fileno())
        self._trackers.save()

    def _tell(self, figures: dict[str, float], step: int) -> None:
        try:
            self._board.log_metrics(figures, step)
        except ValueError as error:  # in which the logger wraps whatever its writer raises
            raise (error.__cause__ if isinstance(error.__cause__, OSError) else error) from None
        self._trackers.metrics(figures, step)

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """Log one line if TensorBoard's thread cannot write. The next call of its writer raises the error itself."""
        if isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard."):
            log.warning(f"the log for TensorBoard is cut short: {failed.exc_value}")
        else:
            self._hook(failed)

    def _write(self, record: dict[str, float]) -> None:
        self._metrics.write(json.dumps({**record, "time": round(time.time(), 3)}) + "\n")
        self._metrics.flush()
        self.lines += 1


class SilentLog:
    """The log of every process except the first: it writes and shows nothing."""

    lines, busy_seconds = 0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self, number: int, *, loss: float, seconds: float) -> None:
        """Ignore it."""

    def figures(self, figures: Figures) -> None:
        """Ignore it."""

    def say(self, line: str) -> None:
        """Ignore it."""

    def sync(self) -> None:
        """Ignore it."""


def cut_metrics(directory: Path, count: int) -> None:
    """Keep the first `count` lines of metrics.jsonl: the resumed run logs again what came after the saved state.

    Raises:
        BadInput: the file has fewer lines.

    """
    path = directory / METRICS
    kept = path.read_bytes().splitlines(keepends=True)[:count] if path.exists() else []
    if len(kept) < count or not all(line.endswith(b"\n") for line in kept):
        raise BadInput(f"{path} has fewer than the {count} lines that the saved state counts", hint=START_ANEW)
    write_atomic(path, b"".join(kept))
