"""The training loop: trains on batches, evaluates the hold-out after every epoch, saves the best and last student."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.data.batches import Batches
from pipeline.models.checkpoint import Figures, NetworkCard, save_checkpoint
from pipeline.recipe.schema import Recipe
from pipeline.runs.directory import CHECKPOINTS
from pipeline.runs.evaluate import attacked, teacher_entropy
from pipeline.runs.progress import SilentLog, TrainingLog, cut_metrics
from pipeline.runs.state import Standing, save_state
from pipeline.tracking.trackers import Trackers
from pipeline.training.devices import from_first
from pipeline.training.trainer import Trainer
from runtime.errors import NonFinite
from runtime.images.image_set import ImageSet
from runtime.interrupt import defer_signals

READ_EVERY = {"cpu": 1, "cuda": 20}
"""Steps between two readings of the losses, by device type. A reading waits for the device."""


@dataclass
class TrainingLoop:
    """Runs the training in each of its processes, from its current progress to the end.

    Args:
        recipe, trainer, batches, card: the training.
        directory: the run directory, in which only the first process writes.
        fabric: the processes.
        teacher: in fp32, to evaluate it, whatever the precision in which it teaches; None if the method needs none.
        holdout: the images on which the checkpoint is chosen.
        standing: the progress of the run; it is updated.
        save_seconds: seconds between two saves of the state within an epoch.
        trackers: also get all figures.

    """

    recipe: Recipe
    directory: Path
    fabric: Fabric
    trainer: Trainer
    teacher: nn.Module | None
    batches: Batches
    holdout: ImageSet
    card: NetworkCard
    standing: Standing
    save_seconds: float
    trackers: Trackers

    def __post_init__(self) -> None:
        """Compute the number of steps, and start the clock."""
        train = self.recipe.train
        self.steps = min(train.epochs * len(self.batches), train.max_steps or sys.maxsize)
        self._began = time.monotonic() - self.standing.seconds
        self._saved = time.monotonic()

    def to_the_end(self, title: str) -> Standing:
        """Train and evaluate each epoch; `title` is the first line of the log.

        Raises:
            KeyboardInterrupt: a signal arrived, and the state is saved.
            NonFinite: the loss is NaN or infinite.
            BadInput: metrics.jsonl has fewer lines than the state says.

        """
        evaluated = self.standing.last.epoch if self.standing.last else 0
        fabric = self.fabric
        holding = defer_signals(alone=fabric.world_size == 1, told=fabric.is_global_zero)
        with self._open_log() as log, holding as asked:
            log.say(title if self.standing.steps == 0 else f"{title}; resumed after step {self.standing.steps}")
            if self.standing.steps == 0:
                self.trainer.calibrate()
            for epoch in range(evaluated, math.ceil(self.steps / len(self.batches))):
                self._train(epoch, log, asked)
                self.trainer.calibrate()
                best, last = from_first(self.fabric, partial(self._evaluate, epoch, log))
                self._move(log, best=best, last=last)
                self._save(log)
        return self.standing

    def _open_log(self) -> TrainingLog | SilentLog:
        from_first(self.fabric, partial(cut_metrics, self.directory, self.standing.lines))
        if not self.fabric.is_global_zero:
            return SilentLog()
        return TrainingLog(
            self.directory,
            steps=self.steps,
            steps_per_epoch=len(self.batches),
            batch=self.batches.size,
            standing=self.standing,
            trackers=self.trackers,
        )

    def _train(self, epoch: int, log: TrainingLog | SilentLog, asked: Callable[[], bool]) -> None:
        """Take the remaining steps of an epoch. The batches of earlier steps are drawn again and skipped.

        Of several processes, only the first one reacts to a signal. It saves the state, and the others end with it.
        """
        taken = self.standing.steps - epoch * len(self.batches)
        left = islice(self.batches.epoch(epoch), taken, None)
        unread: list[Tensor] = []
        began = None
        for number, (images, labels) in zip(range(self.standing.steps, self.steps), left, strict=False):
            began = began or time.monotonic()
            loss = self.trainer.step(images, labels, number=number, steps_per_epoch=len(self.batches), steps=self.steps)
            unread.append(loss)
            ending = asked() and self.fabric.is_global_zero
            saving = ending or time.monotonic() - self._saved >= self.save_seconds
            if saving or len(unread) == READ_EVERY[loss.device.type]:
                self._read(unread, began, log)
                unread, began = [], None
            if saving:
                self._save(log)
            if ending:
                raise KeyboardInterrupt
        if unread:
            assert began is not None
            self._read(unread, began, log)

    def _read(self, losses: list[Tensor], began: float, log: TrainingLog | SilentLog) -> None:
        """Wait for the steps whose losses were not read yet, and log them, with their mean time for each."""
        values: list[float] = torch.stack(losses).tolist()
        seconds = (time.monotonic() - began) / len(values)
        for loss in values:
            number = self.standing.steps + 1
            if not math.isfinite(loss):
                raise NonFinite(f"the loss is {loss} at step {number}", hint="lower train.lr")
            log.step(number, loss=loss, seconds=seconds)
            self._move(log, steps=number)

    def _evaluate(self, epoch: int, log: TrainingLog | SilentLog) -> tuple[Figures, Figures]:
        """Evaluate the student on the hold-out and save it; return the best figures so far, and those of this epoch."""
        network = self.trainer.result(self.batches.epoch(epoch))
        shipped, teacher = self.trainer.shipped(network), self.teacher
        evidence = attacked(
            shipped.network,
            self.holdout,
            lender=shipped.lender,
            classes=len(self.card.classes),
            eps=self.recipe.threat.eps,
            device=self.fabric.device,
            keep=teacher is not None,
        )
        last = Figures(
            epoch=epoch + 1,
            n=len(evidence),
            clean=float(evidence.correct.mean()),
            pgd=float(evidence.robust.mean()),
            teacher_entropy=None if teacher is None else teacher_entropy(teacher, evidence, self.fabric.device),
        )
        best = self.standing.best
        log.figures(last)
        card = self.card.model_copy(update={"figures": last})
        save_checkpoint(self.directory / CHECKPOINTS["last"], network, card)
        if best is None or (last.pgd, last.clean) > (best.pgd, best.clean):
            best = last
            save_checkpoint(self.directory / CHECKPOINTS["best"], network, card)
        return best, last

    def _move(self, log: TrainingLog | SilentLog, **changes: int | Figures) -> None:
        logged = {"lines": log.lines, "busy_seconds": log.busy_seconds, "seconds": time.monotonic() - self._began}
        self.standing = self.standing.model_copy(update={**changes, **logged})

    def _save(self, log: TrainingLog | SilentLog) -> None:
        if self.fabric.is_global_zero:
            log.sync()
            save_state(self.directory, self.standing.model_copy(update={"parts": self.trainer.parts}), self.trainer)
        self._saved = time.monotonic()
