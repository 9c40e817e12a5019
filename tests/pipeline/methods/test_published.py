"""`start = "published"` against each published step, written a second time in float64 with batch normalisation.

The search, the loss, its gradient and the running statistics are those of one step of the method's published code.
"""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from pipeline.methods import METHODS, View
from pipeline.methods.losses import reduce
from pipeline.methods.published import started
from pipeline.methods.search import SearchSpec, search
from pipeline.recipe.schema import Recipe
from pipeline.training.trainer import Trainer
from tests.pipeline.runs.small_runs import CARD

EPS, STEP, STEPS = 8 / 255, 2 / 255, 3
SPEC = SearchSpec(eps=EPS, step=STEP, steps=STEPS)
PUBLISHED = [name for name, method in METHODS.items() if method.published is not None]


class Net(nn.Module):
    """A convolution, a batch normalisation, a product: float64."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 16, 5)
        self.double()

    def forward(self, x):
        return self.head(F.relu(self.norm(self.conv(x))).flatten(1))


@pytest.fixture
def batch():
    """Images with black ground, where a start in [0, 1] is another one; labels; noise of each kind."""
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(12, 1, 6, 6, dtype=torch.float64, generator=generator) - 0.4).clamp(min=0)
    gaussian = 0.001 * torch.randn(images.shape, dtype=torch.float64, generator=generator)
    uniform = EPS * (2 * torch.rand(images.shape, dtype=torch.float64, generator=generator) - 1)
    return images, torch.arange(12) % 5, {"gaussian": gaussian, "uniform": uniform}


def ascend(x, start, value):
    """PGD as all published codes have it: the first gradient at `start`, then steps that are clamped after each."""
    for _ in range(STEPS):
        start = start.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(start), start)
        start = torch.min(torch.max(start.detach() + STEP * gradient.sign(), x - EPS), x + EPS).clamp(0, 1)
    return start


def kl(teacher, student):
    return (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum(1)


def pgd_at(student, teacher, x, y, noise, second):
    student.eval()
    point = ascend(x, (x + noise["gaussian"]).clamp(0, 1), lambda p: F.cross_entropy(student(p), y))
    student.train()
    loss = F.cross_entropy(student(point), y)
    student(x)  # for the accuracy on clean images
    return point, loss


def trades(student, teacher, x, y, noise, second):
    student.eval()
    point = ascend(x, x + noise["gaussian"], lambda p: kl(student(x).detach(), student(p)).sum())
    student.train()
    clean = F.cross_entropy(student(x), y)
    adversarial = student(point)
    return point, clean + 6 / len(x) * kl(student(x), adversarial).sum()


def ard(student, teacher, x, y, noise, second):
    student.train()
    point = ascend(x, x + noise["uniform"], lambda p: F.cross_entropy(student(p), y, reduction="sum"))
    answer = student(point)
    student(x)
    return point, 900 * (kl(teacher(x) / 30, answer / 30) / 5).mean()


def iad(student, teacher, x, y, noise, second):
    student.train()
    point = ascend(x, x + noise["uniform"], lambda p: F.cross_entropy(student(p), y, reduction="sum"))
    answer = student(point)
    student(x)
    loss = kl(teacher(x), answer).mean()
    if not second:
        return point, loss
    trust = teacher(point).softmax(1)[torch.arange(len(x)), y].detach() ** 0.1
    return point, loss + ((1 - trust) * kl(student(x), answer)).mean()


def rslad(student, teacher, x, y, noise, second):
    student.eval()
    point = ascend(x, x + noise["gaussian"], lambda p: kl(teacher(x), student(p)).sum())
    student.train()
    answer = student(point)
    return point, (5 / 6 * kl(teacher(x), answer) / 5 + 1 / 6 * kl(teacher(x), student(x)) / 5).mean()


def adaad(student, teacher, x, y, noise, second):
    student.eval()
    point = ascend(x, x + noise["gaussian"], lambda p: kl(teacher(p), student(p)).sum())
    student.train()
    student(x)
    return point, (kl(teacher(point), student(point)) / 5).mean()


def adaiad(student, teacher, x, y, noise, second):
    student.eval()
    point = ascend(x, x + noise["gaussian"], lambda p: kl(teacher(p), student(p)).sum())
    student.train()
    student(x)
    answer, guide = student(point), teacher(point).detach()
    loss = 900 * kl(guide / 30, answer / 30).mean()
    if second:
        trust = guide.softmax(1)[torch.arange(len(x)), y] ** 0.1
        loss = loss + ((1 - trust) * kl(student(x), answer)).mean()
    student(x)  # of the cross-entropy that weighs 1 - alpha = 0
    return point, loss


def adr(student, average, x, y, noise, second):
    """The student stays in train mode in the search, which raises the loss on the softened labels too."""
    half = 0.5 * (1 + math.cos(math.pi * (0.5 if second else 0.0)))
    with torch.no_grad():
        soft = (average(x) / (2.0 + 0.5 * half)).softmax(1)
        share = (0.95 - 0.25 * half - (soft.max(1).values - soft[torch.arange(len(x)), y])).clamp(0, 1)[:, None]
        label = share * soft + (1 - share) * F.one_hot(y, 5)
    student.train()
    point = ascend(x, (x + noise["uniform"]).clamp(0, 1), lambda p: F.cross_entropy(student(p), label))
    return point, F.cross_entropy(student(point), label)


STEPS_OF = {
    "pgd-at": pgd_at, "trades": trades, "ard": ard, "iad": iad, "rslad": rslad, "adaad": adaad, "adaiad": adaiad,
    "adr": adr,
}  # fmt: skip


def ours(name, start, student, teacher, batch, progress):
    """Take the same step with our methods; return points and loss, its gradient left in the student."""
    images, labels, noise = batch
    method = started(METHODS[name], start)
    student.train()
    searched = copy.deepcopy(student).eval() if method.search_mode == "eval" else student
    own = teacher if method.needs_teacher or method.averages else None
    seen = partial(View, images, labels, teacher=own, options=method.options(), progress=progress)
    view = seen(student=searched)
    points = search(method.objective, view, noise[method.start], SPEC, clamped=method.clamped)
    loss = reduce(method.loss(seen(student=student, known_teacher=view.known_teacher), points), method.reduction, 5)
    loss.backward()
    return points, loss


@pytest.mark.parametrize("progress", [0.0, 0.5])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_step_is_that_of_the_published_code(name, progress, batch):
    teacher, one, other = Net(1).eval().requires_grad_(False), Net(2), Net(2)
    points, loss = STEPS_OF[name](one, teacher, *batch, progress >= 0.3)
    loss.backward()
    found, value = ours(name, "published", other, teacher, batch, progress)
    torch.testing.assert_close(found, points, rtol=0, atol=1e-12)
    torch.testing.assert_close(value, loss, rtol=1e-10, atol=1e-12)
    for here, there in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(here.grad, there.grad, rtol=1e-8, atol=1e-10)
    for here, there in zip(other.buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_clamped_start_is_another_where_the_published_one_leaves_the_range_of_pixels(name, batch):
    teacher = Net(1).eval().requires_grad_(False)
    (clamped, _), (published, _) = (
        ours(name, start, Net(2), teacher, batch, 0.5) for start in ("clamped", "published")
    )
    if METHODS[name].published.clamped:
        assert torch.equal(clamped, published)
    else:
        assert 0.01 < (clamped != published).double().mean() < 0.5


def test_without_a_search_step_the_start_lies_in_the_range_of_pixels(batch):
    images, labels, noise = batch
    view = View(images, labels, Net(2).eval(), None, None, 0.0)
    for clamped in (True, False):
        still = search(METHODS["pgd-at"].objective, view, noise["uniform"], SearchSpec(steps=0), clamped=clamped)
        assert still.min() >= 0


def recipe(name, **method):
    tables = {"data": {"path": "."}, "student": {"arch": "resnet18", "width": 0.0625}, "teacher": {"path": "t"}}
    train, searching = {"epochs": 1, "batch": 8}, {"steps": 2}
    return Recipe.model_validate({
        "name": "published", **tables, "method": {"name": name, **method}, "train": train, "search": searching,
    })  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_run_takes_the_start_that_its_recipe_names(name):
    """Batch normalisation counts the passes that move its statistics; ARD, IAD and ADR move them in the search too."""
    published = METHODS[name].published
    passes = {"clamped": {"trades": 2, "rslad": 2, "ard": 3, "iad": 3, "adr": 3}.get(name, 1)}
    passes["published"] = 1 + published.clean + (2 if METHODS[name].search_mode == "train" else 0)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 4
    for start, count in passes.items():
        built = [CARD.build() for _ in range(2)]
        trainer = Trainer(recipe(name, start=start), built[0], built[1].eval(), classes=4, precision="fp32")
        trainer.step(images, labels, number=0, steps_per_epoch=10, steps=10)
        counted = {
            key: value for key, value in trainer.student.state_dict().items() if key.endswith("num_batches_tracked")
        }
        assert {int(value) for value in counted.values()} == {count}


def test_a_method_without_a_published_code_has_no_published_start():
    assert recipe("akd").method.start == "clamped"
    with pytest.raises(ValidationError, match="akd has no published code"):
        recipe("akd", start="published")
