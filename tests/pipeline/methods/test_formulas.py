"""Every search objective and every loss against its formula, written a second time from softmax and log alone."""

import pytest
import torch

from pipeline.methods import METHODS, View
from pipeline.methods.igdm import with_igdm
from tests.pipeline.conftest import Linear
from tests.pipeline.methods.transcriptions import LOSSES, SEARCHES, SECOND, SMOOTHED, kl, softmax


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
