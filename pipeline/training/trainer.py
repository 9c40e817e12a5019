"""One optimiser step: searches the points, then minimises the loss there."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pipeline.memory import ran_out
from pipeline.methods import View
from pipeline.methods.losses import reduce
from pipeline.methods.search import STARTS, Precision, search
from pipeline.models.layers import Folded, keep_in
from pipeline.models.quantised import Quantised
from pipeline.recipe.schema import Recipe
from pipeline.training.average import Statistics, averaged, follow
from pipeline.training.devices import one_device, share_buffers
from pipeline.training.graphs import Recorder, Replayed
from pipeline.training.mean_teacher import MeanTeacher
from pipeline.training.precision import arithmetic, products, resolve
from pipeline.training.schedule import learning_rate
from pipeline.training.seeds import seed_all
from pipeline.training.weight_perturbation import WeightPerturbation
from runtime.errors import BadRecipe, MissingEnvironment
from runtime.images.image_set import ImageSet
from runtime.terminal.log import log

CALIBRATED_AT_ONCE = 32
Batch = tuple[Tensor, Tensor, Tensor]
"""Images [B, C, H, W], labels [B], noise [B, C, H, W]."""


class Shipped(NamedTuple):
    """The judged form of a network, [B, C, H, W] to [B, K], and a network whose gradient attacks follow too."""

    network: nn.Module
    lender: nn.Module | None = None


class Trainer:
    """A student that learns, its folded copy for the search, and a frozen teacher.

    The student is in training mode throughout. A method that searches in eval mode uses `folded`, so that the search
    cannot update the student's running statistics. A method that searches in train mode uses the student, whose running
    statistics are then updated in every step of the search. Folded student and teacher are kept in the precision of the
    search, so that weights are cast once per step.

    Folding, search and outer step are functions of tensors. With a recorder, each is captured and replayed: folding and
    search always, the outer step only in a single process that processes a batch as a whole.

    A batch is split into `parts` equal parts, each searched and normalised separately. Every process has its share of
    them. The gradient is that of the whole batch. The running statistics are those of the first part, so that one
    process with two parts ends in the same weights as two processes with one part each.

    Args:
        recipe: the training run.
        student: the network that learns, on the device. Weights that require no gradient are frozen: they stay.
        teacher: made by `frozen`, on the device; None if the method needs none. A method that averages makes its own.
        classes: the number of classes.
        precision: the resolved precision; also used for the search, unless the recipe sets another.
        fabric: the processes; by default, this process only.
        recorder: captures the work of a step; by default, steps run without capture.
        calibration: the images that set the ranges, if the recipe has [int8].

    """

    def __init__(
        self,
        recipe: Recipe,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        classes: int,
        precision: Precision,
        fabric: Fabric | None = None,
        recorder: Recorder | None = None,
        calibration: ImageSet | None = None,
    ) -> None:
        self.recipe, self.classes, self.precision = recipe, classes, precision
        device = next(student.parameters()).device
        self.search_precision = resolve(recipe.search.precision, device) if recipe.search.precision else precision
        self.method = recipe.method.resolved()
        self.student = student.train()
        self._learned = [weight for weight in student.parameters() if weight.requires_grad]
        self.calibration = calibration
        self.quantised = Quantised(student) if recipe.int8 is not None else None
        kept = torch.bfloat16 if self.search_precision == "bf16" else torch.float32
        self.folded = Folded(student, kept)
        self.searched_teacher = teacher
        if teacher is not None and kept == torch.bfloat16:
            self.searched_teacher = keep_in(copy.deepcopy(teacher), kept)
        self.teacher = self.searched_teacher if self.search_precision == precision else teacher
        self.mean_teacher = MeanTeacher(student, recipe.method.options.decay) if self.method.averages else None
        if self.mean_teacher is not None:
            self.teacher = self.searched_teacher = self.mean_teacher.network
        self._number = 0
        self._elapsed = torch.zeros((), dtype=torch.float64, device=device)
        train = recipe.train
        self.average = averaged(student) if train.ema is not None else None
        self.perturbation = WeightPerturbation(student, train.awp) if train.awp is not None else None
        self._before, self._first = Statistics(student), Statistics(student)
        self.optimiser = torch.optim.SGD(
            self._learned,
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            nesterov=train.nesterov,
        )
        self.fabric = fabric or one_device(device)
        self._reached: list[Tensor] = []
        if self.fabric.world_size > 1:
            for weight in self._learned:
                weight.register_post_accumulate_grad_hook(self._reached.append)  # type: ignore[no-untyped-call]
        tell = log.info if self.fabric.is_global_zero else log.debug
        self._folding, self._searching, self._learning = (
            Replayed(name, recorder, tell) for name in ("the folding", "the search", "the outer step")
        )
        if self.quantised is not None:
            for work in (self._folding, self._searching, self._learning):
                work.give_up("it is rounded to int8")
        if self.fabric.world_size > 1:
            self._learning.give_up("the gradients of several processes meet in it")
        self.divide(self.fabric.world_size * train.micro_batches)
        if train.compile:
            for network in {self.student, self.folded, self.teacher, self.searched_teacher}:
                if network is not None:
                    network.compile()
        # The outer loss uses this module, in which the gradients of all processes are averaged. The search does not.
        learning = self.student if self.quantised is None else self.quantised
        self.learning = self.fabric.setup_module(learning, move_to_device=False)

    def divide(self, parts: int) -> None:
        """Split every batch into this many parts from now on.

        Raises:
            BadRecipe: there are too many parts for a batch, or the processes cannot share them evenly.

        """
        batch, processes = self.recipe.train.batch, self.fabric.world_size
        if 2 * parts > batch:
            raise BadRecipe(
                f"train.batch: {batch} images cannot be split into {parts} parts: batch norm needs two images in each",
                hint="use fewer parts",
            )
        if parts % processes:
            raise BadRecipe(f"{processes} devices cannot share {parts} parts of a batch", hint="change --devices")
        self.parts = parts
        if parts > processes:
            self._learning.give_up("it adds up the gradients of several parts")

    def step(self, images: Tensor, labels: Tensor, *, number: int, steps_per_epoch: int, steps: int) -> Tensor:
        """Run optimiser step `number` (from 0) of `steps` on one batch; return the loss before the step, on the device.

        A step never waits for the device; reading the loss does.
        Every process gets the whole batch. The noise of an image follows from (seed, number) and its place in the
        batch, however the batch is divided. The random numbers of a factory's layers follow from (seed, number, part).
        """
        self._number = number
        generator = torch.Generator(images.device).manual_seed(self.recipe.seed * 1_000_003 + number)
        noise = STARTS[self.method.start](images, self.recipe.search.eps, generator)
        loss = self.differentiate((images, labels, noise), number / steps)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe.train, number / steps_per_epoch)
        self.optimiser.step()
        share_buffers(self.fabric, self.student)
        if self.average is not None:
            assert self.recipe.train.ema is not None
            follow(self.average, self.student, self.recipe.train.ema)
        if self.mean_teacher is not None:
            self.mean_teacher.follow()
        mean = self.fabric.all_reduce(loss, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _seed_layers(self, *numbers: int) -> None:
        """Seed what the layers of a factory's network may draw from; a resumed run draws the same."""
        if self.recipe.student.factory is not None:
            seed_all(self.recipe.seed, *numbers)

    def differentiate(self, batch: Batch, progress: float) -> Tensor:
        """Store the gradient of the loss in the student; split a batch that does not fit the device."""
        self._elapsed.fill_(progress)
        self._before.take()
        while True:
            try:
                return self._accumulate(batch, progress)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                self._divide_further(error)
            self._before.put_back()
            self.optimiser.zero_grad(set_to_none=True)
            for work in (self._folding, self._searching, self._learning):
                work.release()
            torch.cuda.empty_cache()

    def _divide_further(self, error: RuntimeError) -> None:
        """Double the parts. Several processes would have to agree, so there the recipe must set them."""
        if self.fabric.world_size > 1 or 4 * self.parts > self.recipe.train.batch:
            more = 2 * self.parts // self.fabric.world_size
            raise MissingEnvironment(
                f"a part of {self.recipe.train.batch // self.parts} images does not fit the device's memory",
                hint=f"--set train.micro_batches={more}, or a smaller train.batch",
            ) from error
        self.divide(2 * self.parts)

    def _accumulate(self, batch: Batch, progress: float) -> Tensor:
        """Sum the gradients of this process's parts, and return its share of the loss."""
        loss = torch.zeros((), device=batch[0].device)
        phase = self.method.phase(self.recipe.method.options, progress)
        if self.method.search_mode == "eval" and self.quantised is None:
            self._folding(self._fold, ())
        parts = self._own_parts(batch)
        for index, part in enumerate(parts):
            self._seed_layers(self._number, self.fabric.global_rank * len(parts) + index)
            images, labels, _ = part
            points, *known = self._searching(partial(self._search, progress), part, phase)
            share = len(images) * self.fabric.world_size / len(batch[0])  # DDP takes the mean over processes
            learn = partial(self._learn, progress, share, index == 0)
            with self.fabric.no_backward_sync(self.learning, enabled=index < len(parts) - 1):
                value, *gradients = self._learning(learn, (images, labels, points, *known), phase)
            loss += value
            if index == 0 < len(parts) - 1:
                self._first.take()
        for weight, gradient in zip(self._learned, gradients, strict=True):
            weight.grad = gradient
        if len(parts) > 1:
            self._first.put_back()
        return loss

    def _fold(self) -> tuple[Tensor, ...]:
        """Copy the current weights to the copy that the search uses."""
        self.folded.refresh()
        return ()

    def _search(self, progress: float, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """Return the points of one part, and T(x) if the search has computed it for the loss."""
        # Folded copies are kept in the search's precision; the student itself needs autocast.
        folded = self.method.search_mode == "eval"
        student = self.quantised or (self.folded if folded else self.student)
        view = self._view(images, labels, student, self.searched_teacher, progress)
        context = products(self.search_precision) if folded else arithmetic(self.search_precision, images.device)
        with context:
            points = search(self.method.objective, view, noise, self.recipe.search, self.method.clamped)
        known = view.known_teacher if self.search_precision == self.precision else None
        return (points,) if known is None else (points, known)

    def _learn(
        self, progress: float, share: float, first: bool, images: Tensor, labels: Tensor, points: Tensor, *known: Tensor
    ) -> tuple[Tensor, ...]:
        """Add the gradient of this share of the loss; return the loss and the sums so far."""
        if first:
            self.optimiser.zero_grad(set_to_none=True)
        loss_of = partial(self._loss, progress, images, labels, points, known)
        # Each process, and each part of its batch, perturbs the weights against its own loss, without synchronisation.
        own = partial(loss_of, self.student)
        with products(self.precision), nullcontext() if self.perturbation is None else self.perturbation.of(own):
            loss = share * loss_of(self.learning)
            self._reached.clear()
            if loss.requires_grad:  # not if the student skipped all that learns
                self.fabric.backward(loss)
        return loss.detach(), *self._sums()

    def _sums(self) -> Iterator[Tensor]:
        """Yield the gradient so far of each weight that learns: zero for a layer that the student skipped at random.

        Raises:
            BadRecipe: there is such a layer, and several processes, whose average waits for all gradients.

        """
        if self.fabric.world_size > 1 and len(self._reached) < len(self._learned):
            raise BadRecipe(
                "the student skips layers at random, which several devices cannot train",
                hint="use one device, or multiply the layer's output by 0 instead of skipping it",
            )
        if any(weight.grad is None for weight in self._learned):
            self._learning.give_up("the student skips layers at random")
        for weight in self._learned:
            yield torch.zeros_like(weight) if weight.grad is None else weight.grad

    def _loss(
        self,
        progress: float,
        images: Tensor,
        labels: Tensor,
        points: Tensor,
        known: tuple[Tensor, ...],
        student: nn.Module,
    ) -> Tensor:
        """Return the loss of one part at its points, a scalar."""
        view = self._view(images, labels, student, self.teacher, progress, *known)
        with arithmetic(self.precision, images.device):
            values = self.method.loss(view, points)
        return reduce(values, self.recipe.train.reduction, self.classes)

    def _view(
        self,
        images: Tensor,
        labels: Tensor,
        student: nn.Module,
        teacher: nn.Module | None,
        progress: float,
        known: Tensor | None = None,
    ) -> View:
        options, smoothing = self.recipe.method.options, self.recipe.train.label_smoothing
        return View(images, labels, student, teacher, options, progress, smoothing, known, self._elapsed)

    def _own_parts(self, batch: Batch) -> list[Batch]:
        """Return this process's parts of a batch."""
        each = self.parts // self.fabric.world_size
        first = self.fabric.global_rank * each
        divided = zip(*(tensor.tensor_split(self.parts) for tensor in batch), strict=True)
        return list(divided)[first : first + each]

    def calibrate(self) -> None:
        """Set the ranges of [int8] for the current weights; without [int8], do nothing."""
        if self.quantised is not None:
            self._calibrate(self.quantised)

    def shipped(self, network: nn.Module) -> Shipped:
        """Return the judged form of a network: folded, or, with [int8], rounded and with its unrounded copy as lender.

        Rounding may hide the slopes of the rounded network. A verdict on an int8 artifact uses two gradients as well.
        """
        if self.recipe.int8 is None:
            return Shipped(Folded(network))
        quantised = Quantised(network)
        self._calibrate(quantised)
        return Shipped(quantised, lender=Folded(network))

    def _calibrate(self, quantised: Quantised) -> None:
        assert self.calibration is not None
        device = next(quantised.parameters()).device
        starts = range(0, len(self.calibration), CALIBRATED_AT_ONCE)
        batches = (self.calibration.as_float(slice(start, start + CALIBRATED_AT_ONCE)) for start in starts)
        with arithmetic("fp32", device):
            quantised.calibrate(torch.from_numpy(images).to(device) for images in batches)

    def result(self, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
        """Return the network to evaluate and save: the student, or its average with the statistics of `batches`."""
        if self.average is None:
            return self.student
        device = next(self.student.parameters()).device
        self._seed_layers()
        with arithmetic("fp32", device):
            update_bn(batches, self.average.module, device)
        return self.average.module
