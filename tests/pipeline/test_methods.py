"""The objectives and losses, against derivatives written out by hand."""

import pytest
import torch

from pipeline.methods import METHODS, View
from pipeline.methods.adaad import AdaAdOptions
from pipeline.methods.pgd_at import PgdAtOptions
from tests.pipeline.conftest import Linear

ADAAD, PGD_AT = METHODS["adaad"], METHODS["pgd-at"]


@pytest.fixture
def networks():
    return Linear(1), Linear(2)


@pytest.fixture
def images():
    return torch.rand(5, 1, 3, 4, dtype=torch.float64)


def view_of(networks, images, options, progress=0.0):
    student, teacher = networks
    return View(images, torch.arange(len(images)) % 4, student, teacher, options, progress)


def gradient(objective, view, points):
    points = points.clone().requires_grad_()
    (g,) = torch.autograd.grad(objective(view, points).sum(), points)
    return g


def exact_gradient_of_kl(p_network, q_network, points):
    """d/dx KL(P(x) || Q(x)) for linear logits: W_p' [p (log p - log q - KL)] + W_q' [q - p]."""
    log_p = p_network(points).log_softmax(dim=1)
    log_q = q_network(points).log_softmax(dim=1)
    p, q = log_p.exp(), log_q.exp()
    divergence = (p * (log_p - log_q)).sum(dim=1, keepdim=True)
    through_p = (p * (log_p - log_q - divergence)) @ p_network.W
    through_q = (q - p) @ q_network.W
    return (through_p + through_q).view_as(points).detach()


def test_adaad_search_gradient_is_the_exact_derivative_through_both_networks(networks, images):
    student, teacher = networks
    found = gradient(ADAAD.objective, view_of(networks, images, AdaAdOptions()), images)
    torch.testing.assert_close(found, exact_gradient_of_kl(teacher, student, images))


def test_adaad_search_gradient_differs_from_the_one_with_a_detached_teacher(networks, images):
    view = view_of(networks, images, AdaAdOptions())
    detached = view_of((networks[0], lambda x: networks[1](x).detach()), images, AdaAdOptions())
    both, student_only = (gradient(ADAAD.objective, v, images) for v in (view, detached))
    assert (both.sign() != student_only.sign()).double().mean() > 0.1


def test_adaad_direction_of_the_slides_is_the_kl_turned_around(networks, images):
    student, teacher = networks
    options = AdaAdOptions(direction="student_teacher")
    found = gradient(ADAAD.objective, view_of(networks, images, options), images)
    torch.testing.assert_close(found, exact_gradient_of_kl(student, teacher, images))


def test_adaad_loss_mixes_the_searched_and_the_clean_point_by_alpha(networks, images):
    student, teacher = networks
    points = (images + 0.05).clamp(0, 1)
    found = ADAAD.loss(view_of(networks, images, AdaAdOptions(alpha=0.25)), points)
    p, q = ([torch.softmax(network(x), dim=1) for network in (teacher, student)] for x in (points, images))
    kl = [(t * (t / s).log()).sum(dim=1) for t, s in (p, q)]
    torch.testing.assert_close(found, 0.25 * kl[0] + 0.75 * kl[1])


def test_clean_teacher_is_asked_once_a_batch_and_only_where_a_loss_uses_it(networks, images):
    student, teacher = networks
    asked = []

    def counting(x):
        asked.append(x)
        return teacher(x)

    view = view_of((student, counting), images, AdaAdOptions(alpha=0.5))
    ADAAD.loss(view, images)
    ADAAD.loss(view.with_student(student), images)
    clean = [x for x in asked if not x.requires_grad]
    assert len(clean) == 3  # twice at the point, once clean
    asked.clear()
    ADAAD.loss(view_of((student, counting), images, AdaAdOptions()), images)
    assert len(asked) == 1


def test_clean_statistics_forward_the_clean_images_and_change_no_loss(networks, images):
    student, teacher = networks
    seen = []

    def counting(x):
        seen.append(x)
        return student(x)

    losses = [
        ADAAD.loss(view_of((counting, teacher), images, AdaAdOptions(clean_statistics=option)), images + 0.01)
        for option in (False, True)
    ]
    torch.testing.assert_close(*losses)
    assert len(seen) == 3
    assert seen[-1] is images


def test_pgd_at_search_gradient_is_that_of_the_cross_entropy(networks, images):
    student, _ = networks
    view = view_of((student, None), images, PgdAtOptions())
    p = torch.softmax(student(images), dim=1)
    expected = (p - torch.eye(4, dtype=torch.float64)[view.labels]) @ student.W
    torch.testing.assert_close(gradient(PGD_AT.objective, view, images), expected.detach().view_as(images))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_returns_one_finite_value_an_image_from_search_and_loss(name, networks, images):
    method = METHODS[name]
    view = view_of(networks, images, method.options())
    for function in (method.objective, method.loss):
        values = function(view, images)
        assert values.shape == (5,)
        assert values.isfinite().all()
