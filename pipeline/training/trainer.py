"""One optimiser step: search the points, lower the loss there."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from pipeline.memory import ran_out
from pipeline.methods import View
from pipeline.methods.losses import reduce
from pipeline.methods.search import STARTS, Precision, search
from pipeline.models.layers import Folded
from pipeline.recipe.schema import Recipe
from pipeline.training.devices import one_device, share_buffers
from pipeline.training.mean_teacher import MeanTeacher
from pipeline.training.precision import arithmetic, products, resolve
from pipeline.training.schedule import learning_rate
from runtime.errors import BadRecipe, MissingEnvironment

Batch = tuple[Tensor, Tensor, Tensor]
"""Images [B, C, H, W], labels [B], noise [B, C, H, W]."""


class Trainer:
    """A student that learns, its folded copy for the search, and a frozen teacher.

    The student is in training mode throughout. A method that searches in eval mode sees `folded`, so that nothing
    in the search can move the student's running statistics; one that searches in train mode sees the student, whose
    running statistics then move with every step of the search.

    A batch is taken in `parts` equal ones, each searched and normalised by itself; every process has its share of
    them. The gradient is that of the whole batch. The running statistics are those of the first part, so that one
    process with two parts ends in the weights of two processes with one part each.

    Args:
        recipe: what to do.
        student: learns; on the device.
        teacher: `frozen`, on the device; None where the method needs none. One that averages makes its own.
        classes: how many.
        precision: resolved; the search's where the recipe names none for it.
        fabric: the processes; by default this one alone.

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
    ) -> None:
        self.recipe, self.classes, self.precision = recipe, classes, precision
        device = next(student.parameters()).device
        self.search_precision = resolve(recipe.search.precision, device) if recipe.search.precision else precision
        self.method = recipe.method.resolved()
        self.student = student.train()
        self.folded = Folded(student)
        self.mean_teacher = MeanTeacher(student, recipe.method.options.decay) if self.method.averages else None
        self.teacher = teacher if self.mean_teacher is None else self.mean_teacher.network
        self._elapsed = torch.zeros((), dtype=torch.float64, device=device)
        train = recipe.train
        self.average = averaged(student, train.ema) if train.ema is not None else None
        self.optimiser = torch.optim.SGD(
            student.parameters(),
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            nesterov=train.nesterov,
        )
        self.fabric = fabric or one_device(device)
        self.divide(self.fabric.world_size * train.micro_batches)
        if train.compile:
            for network in (self.student, self.folded, self.teacher):
                if network is not None:
                    network.compile()
        # What the outer loss sees: the gradients of all processes meet there. The search never goes through it.
        self.learning = self.fabric.setup_module(self.student, move_to_device=False)

    def divide(self, parts: int) -> None:
        """Take every batch in so many parts from now on.

        Raises:
            BadRecipe: they are too many for a batch, or the processes cannot share them evenly.

        """
        batch, processes = self.recipe.train.batch, self.fabric.world_size
        if 2 * parts > batch:
            raise BadRecipe(f"train.batch: {batch} images in {parts} parts: batch norm needs two", hint="take fewer")
        if parts % processes:
            raise BadRecipe(f"{processes} devices cannot share {parts} parts of a batch", hint="change --devices")
        self.parts = parts

    def step(self, images: Tensor, labels: Tensor, *, number: int, steps_per_epoch: int, steps: int) -> float:
        """Take optimiser step `number` (from 0) of `steps` on one batch, and return the loss before it.

        Every process gets the whole batch. The noise of an image follows from (seed, number) and its place in the
        batch, however the batch is divided.
        """
        generator = torch.Generator(images.device).manual_seed(self.recipe.seed * 1_000_003 + number)
        noise = STARTS[self.method.start](images, self.recipe.search.eps, generator)
        loss = self.differentiate((images, labels, noise), number / steps)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe.train, number / steps_per_epoch)
        self.optimiser.step()
        share_buffers(self.fabric, self.student)
        if self.average is not None:
            self.average.update_parameters(self.student)
        if self.mean_teacher is not None:
            self.mean_teacher.follow()
        mean = self.fabric.all_reduce(loss, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean.item()

    def differentiate(self, batch: Batch, progress: float) -> Tensor:
        """Leave the gradient of the loss in the student; of a batch that does not fit the device, in smaller parts."""
        self._elapsed.fill_(progress)
        before = _buffers(self.student)
        while True:
            try:
                return self._accumulate(batch, progress)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                self._divide_further(error)
            _restore(self.student, before)
            self.optimiser.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _divide_further(self, error: RuntimeError) -> None:
        """Double the parts; several processes would have to agree, so there it is for the recipe to say."""
        if self.fabric.world_size > 1 or 4 * self.parts > self.recipe.train.batch:
            more = 2 * self.parts // self.fabric.world_size
            raise MissingEnvironment(
                f"a part of {self.recipe.train.batch // self.parts} images does not fit the device's memory",
                hint=f"--set train.micro_batches={more}, or a smaller train.batch",
            ) from error
        self.divide(2 * self.parts)

    def _accumulate(self, batch: Batch, progress: float) -> Tensor:
        """Sum the gradients of this process's parts, and return its share of the loss."""
        self.optimiser.zero_grad(set_to_none=True)
        searched: nn.Module = self.folded.refresh() if self.method.search_mode == "eval" else self.student
        loss = torch.zeros((), device=batch[0].device)
        parts = self._own_parts(batch)
        for index, part in enumerate(parts):
            with self.fabric.no_backward_sync(self.learning, enabled=index < len(parts) - 1):
                share = len(part[0]) * self.fabric.world_size / len(batch[0])  # DDP takes the mean over processes
                value = share * self._loss(searched, part, progress)
                with products(self.precision):
                    self.fabric.backward(value)
            loss += value.detach()
            if index == 0:
                statistics = _buffers(self.student)
        if len(parts) > 1:
            _restore(self.student, statistics)
        return loss

    def _loss(self, searched: nn.Module, part: Batch, progress: float) -> Tensor:
        """Search the points of one part, and return the method's loss there, reduced."""
        images, labels, noise = part
        smoothing = self.recipe.train.label_smoothing
        options = self.recipe.method.options
        view = View(images, labels, searched, self.teacher, options, progress, smoothing, self._elapsed)
        with arithmetic(self.search_precision, images.device):
            points = search(self.method.objective, view, noise, self.recipe.search, self.method.clamped)
        with arithmetic(self.precision, images.device):
            learning = view.with_student(self.learning, keep_teacher=self.search_precision == self.precision)
            values = self.method.loss(learning, points)
        return reduce(values, self.recipe.train.reduction, self.classes)

    def _own_parts(self, batch: Batch) -> list[Batch]:
        """Return this process's parts of a batch."""
        each = self.parts // self.fabric.world_size
        first = self.fabric.global_rank * each
        divided = zip(*(tensor.tensor_split(self.parts) for tensor in batch), strict=True)
        return list(divided)[first : first + each]

    def result(self, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
        """Return the network to evaluate and save: the student, or its average with the statistics of `batches`."""
        if self.average is None:
            return self.student
        device = next(self.student.parameters()).device
        with arithmetic("fp32", device):
            update_bn(batches, self.average.module, device)
        return self.average.module


def averaged(student: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of the student for `update_parameters`: w <- decay w + (1 - decay) w_student.

    The first update copies. Running statistics are not averaged but copied, until `update_bn` computes them anew
    (Izmailov et al., UAI 2018).
    """
    return AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


def _buffers(network: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in network.buffers()]


def _restore(network: nn.Module, values: list[Tensor]) -> None:
    for buffer, value in zip(network.buffers(), values, strict=True):
        buffer.copy_(value)
