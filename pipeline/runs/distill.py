"""Turns a recipe into a run: loads data, teacher and student, trains, and writes the summary."""

from __future__ import annotations

import platform
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from pipeline.data.batches import Batches
from pipeline.data.extra import load_extra, refuse_judged
from pipeline.data.overlap import copies_in_words
from pipeline.data.sets import Dataset, hold_out, load_dataset, mean_and_std
from pipeline.memory import running_out
from pipeline.methods import METHODS
from pipeline.models.checkpoint import NetworkCard
from pipeline.models.factory import check_learns, check_made
from pipeline.recipe.schema import Recipe
from pipeline.recipe.tables import LogTable
from pipeline.runs.directory import RECIPE, SUMMARY, Summary, claim, sole_writer
from pipeline.runs.evaluate import device_name
from pipeline.runs.judge import judge
from pipeline.runs.loop import TrainingLoop
from pipeline.runs.start import calibration_images, open_start
from pipeline.runs.state import Standing, restore_state
from pipeline.runs.teacher import check_teacher, prepare_teacher
from pipeline.tracking.trackers import Trackers, check_trackers
from pipeline.training.devices import from_first, launch, local_processes
from pipeline.training.graphs import recorder_of
from pipeline.training.precision import emulates_bf16, in_words, resolve
from pipeline.training.seeds import seed_all
from pipeline.training.trainer import Trainer
from runtime.bundle.manifest import InputShape
from runtime.errors import BadData
from runtime.files import write_atomic
from runtime.images import DATA_ROOT
from runtime.images.classes import order_in_words
from runtime.images.image_set import ImageSet
from runtime.machine.card import software
from runtime.machine.cuda import gpu_software
from runtime.spec import DataRecord, to_json
from runtime.terminal.log import log

SAVE_SECONDS = 60.0
"""Seconds between two saves of the state within an epoch."""


def distill(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path = DATA_ROOT,
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    save_seconds: float = SAVE_SECONDS,
    allow_weak_teacher: bool = False,
) -> Summary:
    """Run a recipe; write recipe.toml, both checkpoints, the logs and summary.json into `out`; return the summary.

    Args:
        recipe: the training run.
        out: the run directory, on storage that all nodes see.
        data_root: the directory of data sets with a name.
        resume: continue from the saved state of the run in `out`, to the same weights; start if there is none; a
            finished run is left unchanged.
        devices: processes on this machine, each with a GPU if there are any; several share a batch.
        nodes: machines.
        save_seconds: seconds between two saves of the state within an epoch; it is always saved after an epoch.
        allow_weak_teacher: accept a teacher whose accuracy under PGD is near chance.

    Raises:
        UsageFault: `out` is not empty, or not a run; or another process is training there.
        BadData, BadModel, BadRecipe: data, teacher and recipe do not match; nothing has been written.
        BadRecipe, BadInput: the run began with another recipe, data or teacher, or its state is damaged.
        MissingEnvironment: there are too few devices, a process was lost, memory ran out, or a tracker of [log] is not
            installed or cannot start.
        NonFinite: the loss is no longer a number.

    """
    check_trackers(recipe.log)
    arguments = (recipe.to_dict(), recipe.log, out, data_root, resume, save_seconds, allow_weak_teacher)
    return launch(_run, *arguments, devices=devices, nodes=nodes)


def _run(
    fabric: Fabric,
    table: dict[str, Any],
    log_to: LogTable,
    out: Path,
    data_root: Path,
    resume: bool,
    save_seconds: float,
    allow_weak_teacher: bool,
) -> Summary:
    """Run `distill` in one of the processes. Only the first one writes and logs."""
    recipe = Recipe.model_validate({**table, "log": log_to})
    with ExitStack() as held, running_out():
        finished = from_first(fabric, lambda: _claimed(held, out, recipe, resume=resume))
        if finished is None:
            return _trained(fabric, recipe, out, data_root, save_seconds, allow_weak_teacher)
    if fabric.is_global_zero:
        log.info(f"{out} is finished; there is nothing to resume")
    return finished


def _claimed(held: ExitStack, out: Path, recipe: Recipe, *, resume: bool) -> Summary | None:
    """Claim the run directory as its only writer while `held` is open. Its contents are read only afterwards."""
    if not out.is_dir():
        claim(out, recipe, resume=resume)
    held.enter_context(sole_writer(out))
    return claim(out, recipe, resume=resume)


def _trained(
    fabric: Fabric, recipe: Recipe, out: Path, data_root: Path, save_seconds: float, allow_weak_teacher: bool
) -> Summary:
    device = fabric.device
    precision = resolve(recipe.train.precision, device)
    tell = log.info if fabric.is_global_zero else log.debug
    if "bf16" in (precision, recipe.search.precision) and fabric.is_global_zero and emulates_bf16(device):
        log.warning("this processor emulates bf16, slower than fp32: set train.precision and search.precision to fp32")
    check_teacher(recipe)
    tell(f"{recipe.name}: reading the images")
    data = recipe.data
    dataset = load_dataset(data.name, data.path, data_root, preprocessing=data.size, sharing=local_processes(fabric))
    if data.path is not None:
        tell(f"{data.path}: {order_in_words(dataset.classes)}")
    extra = load_extra(data.extra.path, data.extra.share, dataset) if data.extra else None
    training, holdout = hold_out(dataset.train, recipe.data.holdout, recipe.seed)
    _check_batch(recipe, training, holdout)
    for unseen, role in ((holdout, "hold-out"), (dataset.test, "test")):
        if extra is not None:
            refuse_judged(extra, unseen, role)
        copies = copies_in_words(training, unseen, role)
        if copies and fabric.is_global_zero:
            log.warning(copies)
    card = network_card(recipe, dataset)
    _check_student(card, training=recipe.int8 is None)
    if METHODS[recipe.method.name].needs_teacher:
        tell(f"evaluating the teacher on {len(holdout)} hold-out images")
    teacher = prepare_teacher(recipe, card, holdout, device, allow_weak=allow_weak_teacher)
    if teacher is not None:
        tell(str(teacher))
    seed_all(recipe.seed)  # the initial weights
    trained_on, also_on = _record(training), _record(extra.images) if extra else None
    start = None if recipe.int8 is None else open_start(recipe.int8, card, trained_on)
    if start and not start.vouched and fabric.is_global_zero:
        log.warning(f"int8.start: no {SUMMARY} beside it: its hold-out figures may be of images that it was trained on")
    student = (card.build() if start is None else start.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(
        training,
        recipe.train.batch,
        crop=data.crop,
        flip=data.flip,
        kind=data.augment,
        switch=data.augment_switch,
        seed=recipe.seed,
        device=device,
        place=data.place,
        sharing=local_processes(fabric),
        extra=extra,
    )
    network, digest = (teacher.network, teacher.sha256) if teacher else (None, None)
    trainer = Trainer(
        recipe,
        student,
        network,
        classes=len(card.classes),
        precision=precision,
        fabric=fabric,
        recorder=recorder_of(device),
        calibration=None if recipe.int8 is None else calibration_images(training, recipe.int8.images, recipe.seed),
    )
    new = Standing(
        parts=trainer.parts,
        training_data=trained_on.sha256,
        extra_data=also_on.sha256 if also_on else None,
        teacher=digest,
        start=start.sha256 if start else None,
    )
    standing = restore_state(out, trainer, new)
    from_first(fabric, lambda: write_atomic(out / RECIPE, recipe.to_toml().encode()))

    with Trackers() as trackers:
        from_first(fabric, lambda: trackers.open(recipe, out))
        run = TrainingLoop(
            recipe, out, fabric, trainer, network, batches, holdout, card, standing, save_seconds, trackers
        )
        if data.augment_switch is not None and run.steps <= data.augment_switch[0] * len(batches):
            tell(f"train.max_steps ends the run before data.augment_switch: {data.augment_switch[1]} is never used")
        words = in_words(trainer.precision, trainer.search_precision)
        standing = run.to_the_end(f"{recipe.name}: {recipe.method.name} on {len(training)} images, {device}, {words}")
        assert standing.best is not None
        assert standing.last is not None
        tell("evaluating the best and the last checkpoint")
        judged = from_first(
            fabric, lambda: judge(out, holdout, eps=recipe.threat.eps, device=device, shipped=trainer.shipped)
        )
        summary = Summary(
            name=recipe.name,
            method=recipe.method.name,
            seed=recipe.seed,
            best=standing.best,
            last=standing.last,
            judged=judged,
            steps=standing.steps,
            seconds=round(standing.seconds, 1),
            images_per_second=round(standing.steps * batches.size / max(standing.busy_seconds, 1e-9), 1),
            precision=trainer.precision,
            search_precision=trainer.search_precision if recipe.search.precision else None,
            device=device_name(device),
            threads=torch.get_num_threads(),
            devices=fabric.world_size,
            norm_batch=None if recipe.int8 else recipe.train.batch // trainer.parts,
            teacher_sha256=digest,
            teacher=teacher.figures if teacher else None,
            training_data=trained_on,
            extra_data=also_on,
            start_sha256=start.sha256 if start else None,
            software={"python": platform.python_version(), **software(("edgeproof", "torch"))}
            | (gpu_software() if device.type == "cuda" else {}),
        )
        from_first(fabric, lambda: write_atomic(out / SUMMARY, to_json(summary)))
        trackers.summary(summary)
    return summary


def _record(images: ImageSet) -> DataRecord:
    return DataRecord(name=images.name, n=len(images), sha256=images.sha256)


def _check_batch(recipe: Recipe, training: ImageSet, holdout: ImageSet) -> None:
    if len(training) < recipe.train.batch:
        every = len(training) + len(holdout)
        raise BadData(
            f"{len(training)} training images do not fill one batch of {recipe.train.batch}: data.holdout "
            f"holds out {len(holdout)} of {every}",
            hint="lower data.holdout or train.batch",
        )


def network_card(recipe: Recipe, dataset: Dataset) -> NetworkCard:
    """Describe the student of a recipe. The training images determine its input shape and its normalisation."""
    channels, height, width = dataset.train.images.shape[1:]
    mean, std = mean_and_std(dataset.train)
    return NetworkCard(
        arch=recipe.student.arch,
        width=recipe.student.width,
        depth=recipe.student.depth,
        factory=recipe.student.factory,
        input=InputShape(channels=channels, height=height, width=width),
        classes=dataset.classes,
        mean=mean,
        std=std,
    )


def _check_student(card: NetworkCard, *, training: bool) -> None:
    """Check the network of a user's factory, in the mode in which it learns. This consumes no random number of PyTorch.

    Raises:
        BadRecipe: see `check_made` and `check_learns`.

    """
    if card.factory is not None:
        with torch.random.fork_rng(devices=[]):
            network = card.build()
            check_made(card.factory, network, card.image, len(card.classes))
            check_learns(card.factory, network, card.image, len(card.classes), training=training)
