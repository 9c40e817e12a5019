"""Every search objective and every loss against its formula, written a second time from softmax and log alone."""

import math

import pytest
import torch

from pipeline.methods import METHODS, View
from pipeline.methods.igdm import with_igdm
from tests.pipeline.conftest import Linear


def softmax(z, t=1.0):
    e = (z / t).exp()
    return e / e.sum(dim=1, keepdim=True)


def kl(p, q):
    return (p * (p / q).log()).sum(dim=1)


def ce(p, target):
    return -(target * p.log()).sum(dim=1)


def w(T, y, x_):
    """T(x')_y^0.1, a constant."""
    return ((T(x_) * y).sum(dim=1) ** 0.1).detach()


def cosine(first, last, progress):
    """As the published code of ADR has it, of iteration i of n where i / n is the progress."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))


def softened(T, y, x, progress, temperature=(2.5, 2.0), interpolation=(0.7, 0.95)):
    """ADR's label, image by image; T is the average of the student's weights."""
    rows = []
    for p, label in zip(T(x, cosine(*temperature, progress)), y, strict=True):
        share = cosine(*interpolation, progress) - (max(p) - p[label.argmax()])
        share = min(max(share, 0.0), 1.0)
        rows.append(share * p + (1 - share) * label)
    return torch.stack(rows)


# S and T are probabilities at a temperature, y is one-hot, x_ is the searched point.
SEARCHES = {
    "pgd-at": lambda S, T, y, x, x_: ce(S(x_), y),
    "trades": lambda S, T, y, x, x_: kl(S(x), S(x_)),
    "ard": lambda S, T, y, x, x_: ce(S(x_), y),
    "iad": lambda S, T, y, x, x_: ce(S(x_), y),
    "rslad": lambda S, T, y, x, x_: kl(T(x), S(x_)),
    "akd": lambda S, T, y, x, x_: ce(S(x_), y),
    "adaad": lambda S, T, y, x, x_: kl(T(x_), S(x_)),
    "adaiad": lambda S, T, y, x, x_: kl(T(x_), S(x_)),
    "adr": lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, SECOND)),
}
FIRST, SECOND = 0.29, 0.3
LOSSES = [
    ("pgd-at", {}, SECOND, lambda S, T, y, x, x_: ce(S(x_), y)),
    ("trades", {}, SECOND, lambda S, T, y, x, x_: ce(S(x), y) + 6 * kl(S(x), S(x_))),
    ("trades", {"beta": 1.5}, SECOND, lambda S, T, y, x, x_: ce(S(x), y) + 1.5 * kl(S(x), S(x_))),
    ("ard", {}, SECOND, lambda S, T, y, x, x_: 900 * kl(T(x, 30), S(x_, 30))),
    ("ard", {"temperature": 2}, SECOND, lambda S, T, y, x, x_: 4 * kl(T(x, 2), S(x_, 2))),
    ("iad", {}, FIRST, lambda S, T, y, x, x_: kl(T(x), S(x_))),
    ("iad", {}, SECOND, lambda S, T, y, x, x_: kl(T(x), S(x_)) + (1 - w(T, y, x_)) * kl(S(x), S(x_))),
    ("rslad", {}, SECOND, lambda S, T, y, x, x_: 5 / 6 * kl(T(x), S(x_)) + 1 / 6 * kl(T(x), S(x))),
    (
        "rslad",
        {"searched": "50/6", "clean": 2},
        SECOND,
        lambda S, T, y, x, x_: 50 / 6 * kl(T(x), S(x_)) + 2 * kl(T(x), S(x)),
    ),
    ("akd", {}, SECOND, lambda S, T, y, x, x_: ce(S(x_), 0.5 * T(x_) + 0.5 * y)),
    ("akd", {"k": 0.9}, SECOND, lambda S, T, y, x, x_: ce(S(x_), 0.9 * T(x_) + 0.1 * y)),
    ("adaad", {}, SECOND, lambda S, T, y, x, x_: kl(T(x_), S(x_))),
    ("adaad", {"alpha": 0.25}, SECOND, lambda S, T, y, x, x_: 0.25 * kl(T(x_), S(x_)) + 0.75 * kl(T(x), S(x))),
    (
        "adaad",
        {"alpha": 0.25, "direction": "student_teacher"},
        SECOND,
        lambda S, T, y, x, x_: 0.25 * kl(S(x_), T(x_)) + 0.75 * kl(S(x), T(x)),
    ),
    ("adaiad", {}, FIRST, lambda S, T, y, x, x_: 900 * kl(T(x_, 30), S(x_, 30))),
    (
        "adaiad",
        {"temperature": 2},
        SECOND,
        lambda S, T, y, x, x_: 4 * kl(T(x_, 2), S(x_, 2)) + (1 - w(T, y, x_)) * kl(S(x), S(x_)),
    ),
    ("adr", {}, SECOND, lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, SECOND))),
    ("adr", {}, 1.0, lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, 1.0))),
    (
        "adr",
        {"temperature": [1.5, 1], "interpolation": [0.2, 0.4]},
        FIRST,
        lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, FIRST, (1.5, 1), (0.2, 0.4))),
    ),
]


class Case:
    """A batch of five images, two linear networks, and a method's functions on them beside a formula."""

    def __init__(self, name, options, progress, smoothing=0.0):
        self.student, self.teacher = Linear(1), Linear(2).requires_grad_(False)
        self.images = torch.rand(5, 1, 3, 4, dtype=torch.float64)
        self.points = (self.images + 0.1 * torch.rand_like(self.images)).requires_grad_()
        self.labels = torch.arange(5) % 4
        self.method = METHODS[name]
        options = self.method.options(**options)
        self.view = View(self.images, self.labels, self.student, self.teacher, options, progress, smoothing)

    def transcribed(self, formula):
        def S(x, t=1.0):
            return softmax(self.student(x), t)

        def T(x, t=1.0):
            return softmax(self.teacher(x), t)

        return formula(S, T, torch.eye(4, dtype=torch.float64)[self.labels], self.images, self.points)


def assert_same(found, expected, inputs):
    """The values are equal, and the gradients of a sum that weighs every image differently."""
    torch.testing.assert_close(found, expected)
    weights = torch.arange(1, 6, dtype=torch.float64)
    gradients = [torch.autograd.grad(weights @ values, inputs) for values in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", METHODS)
def test_search_objective_and_its_gradient_in_the_point_are_the_formulas(name):
    case = Case(name, {}, SECOND)
    found = case.method.objective(case.view, case.points)
    assert_same(found, case.transcribed(SEARCHES[name]), [case.points])


@pytest.mark.parametrize(
    ("name", "options", "progress", "formula"), LOSSES, ids=[f"{name}-{options}" for name, options, *_ in LOSSES]
)
def test_loss_and_its_gradient_in_the_weights_are_the_formulas(name, options, progress, formula):
    case = Case(name, options, progress)
    found = case.method.loss(case.view, case.points.detach())
    assert_same(found, case.transcribed(formula), list(case.student.parameters()))


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].needs_teacher])
def test_igdm_adds_its_formula_to_the_loss_of_every_method_with_a_teacher(name):
    """On logits: KL between the softmax of what both differ by between x + d and x - d, d = x' - x."""
    options, progress, plain = next(row for method, *row in LOSSES if method == name)
    case = Case(name, options, progress)
    z, t = case.student, case.teacher
    d = case.points.detach() - case.images
    match = kl(softmax(t(case.images + d) - t(case.images - d)), softmax(z(case.images + d) - z(case.images - d)))
    found = with_igdm(case.method, 20.0).loss(case.view, case.points.detach())
    assert_same(found, case.transcribed(plain) + 20.0 * progress * match, list(case.student.parameters()))
    assert with_igdm(case.method, 20.0).objective is case.method.objective
    assert with_igdm(case.method, None) is case.method


SMOOTHED = {
    "pgd-at": lambda S, T, y, x, x_: ce(S(x_), smooth(y)),
    "trades": lambda S, T, y, x, x_: ce(S(x), smooth(y)) + 6 * kl(S(x), S(x_)),
    "akd": lambda S, T, y, x, x_: ce(S(x_), 0.5 * T(x_) + 0.5 * smooth(y)),
}


def smooth(y):
    """A tenth of a one-hot target spread over four classes."""
    return 0.9 * y + 0.1 / 4


@pytest.mark.parametrize("name", METHODS)
def test_smoothed_labels_are_in_the_loss_by_the_formula_or_nowhere(name):
    options, progress, plain = next(row for method, *row in LOSSES if method == name)
    case = Case(name, options, progress, smoothing=0.1)
    assert METHODS[name].has_labels == (name in SMOOTHED)
    formula = SMOOTHED.get(name, plain)
    found = case.method.loss(case.view, case.points.detach())
    assert_same(found, case.transcribed(formula), list(case.student.parameters()))
    found = case.method.objective(case.view, case.points)
    assert_same(found, case.transcribed(SEARCHES[name]), [case.points])


def test_every_method_has_a_transcription():
    assert set(METHODS) == set(SEARCHES) == {name for name, *_ in LOSSES}


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_of_the_search_is_a_difference_of_its_values(name):
    """By finite differences, so that no automatic derivative is taken on trust."""
    case = Case(name, {}, SECOND)
    (gradient,) = torch.autograd.grad(case.method.objective(case.view, case.points).sum(), case.points)
    direction, h = torch.randn_like(case.points), 1e-6
    with torch.no_grad():
        ahead, behind = (case.method.objective(case.view, case.points + s * h * direction).sum() for s in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)
