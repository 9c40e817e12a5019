"""What a method must not get wrong: derivatives written out by hand, and the traps of the published codes."""

import pytest
import torch

from pipeline.methods import METHODS, View
from pipeline.methods.adaad import AdaAdOptions
from pipeline.methods.igdm import with_igdm
from pipeline.methods.pgd_at import PgdAtOptions
from pipeline.methods.search import SearchSpec, search
from tests.pipeline.conftest import Linear
from tests.pipeline.methods.transcriptions import COST, PUBLISHED, STEPS

ADAAD, PGD_AT = METHODS["adaad"], METHODS["pgd-at"]
ADAPTIVE, INTROSPECTIVE = ("adaad", "adaiad"), ("iad", "adaiad")


@pytest.fixture
def networks():
    return Linear(1), Linear(2)


@pytest.fixture
def images():
    return torch.rand(5, 1, 3, 4, dtype=torch.float64)


def view_of(networks, images, options, progress=0.0, elapsed=None):
    student, teacher = networks
    return View(images, torch.arange(len(images)) % 4, student, teacher, options, progress, elapsed=elapsed)


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


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaad_search_gradient_is_the_exact_derivative_through_both_networks(name, networks, images):
    student, teacher = networks
    found = gradient(METHODS[name].objective, view_of(networks, images, METHODS[name].options()), images)
    torch.testing.assert_close(found, exact_gradient_of_kl(teacher, student, images))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaad_search_gradient_differs_from_the_one_with_a_detached_teacher(name, networks, images):
    method = METHODS[name]
    view = view_of(networks, images, method.options())
    detached = view_of((networks[0], lambda x: networks[1](x).detach()), images, method.options())
    both, student_only = (gradient(method.objective, v, images) for v in (view, detached))
    assert (both.sign() != student_only.sign()).double().mean() > 0.1


def test_adaad_direction_of_the_slides_is_the_kl_turned_around(networks, images):
    student, teacher = networks
    options = AdaAdOptions(direction="student_teacher")
    found = gradient(ADAAD.objective, view_of(networks, images, options), images)
    torch.testing.assert_close(found, exact_gradient_of_kl(student, teacher, images))


class Counting:
    """A network that keeps what it was asked."""

    def __init__(self, network):
        self.network, self.asked = network, []

    def __call__(self, x):
        self.asked.append(x)
        return self.network(x)

    def count(self, x):
        return sum(asked is x for asked in self.asked)


def cost_of(method, networks, images):
    student, teacher = (Counting(network) for network in networks)
    view = view_of((student, teacher), images, method.options(), progress=0.5)
    points = search(method.objective, view, torch.zeros_like(images), SearchSpec(steps=STEPS))
    loss_view = View(images, view.labels, student, teacher, view.options, 0.5, known_teacher=view.known_teacher)
    method.loss(loss_view, points)
    clean = [network.count(images) for network in (teacher, student)]
    searched = [len(network.asked) - count for network, count in zip((teacher, student), clean, strict=True)]
    return clean[0], searched[0], clean[1], searched[1]


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_costs_no_forward_pass_that_the_method_does_not_need(name, networks, images):
    """T(x) once a batch, S(x) once in the search and once in the loss, each only where it is used."""
    assert cost_of(METHODS[name], networks, images) == COST[name]


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].needs_teacher])
def test_igdm_costs_a_pass_at_x_minus_d_through_both_and_t_at_x_plus_d_where_the_method_has_none(
    name, networks, images
):
    at_x, at_points, *student = COST[name]
    asked = name in ("adaad", "adaiad", "akd", "iad")  # about the points found
    expected = (at_x, at_points + (1 if asked else 2), student[0], student[1] + 1)
    assert cost_of(with_igdm(METHODS[name], 1.0), networks, images) == expected


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_depends_on_the_progress_by_its_phase_alone(name, networks, images):
    """A step is captured once a phase, and replayed: what else changes is read from a number in one place."""
    method, values, elapsed = METHODS[name], {}, torch.full((), 0.4, dtype=torch.float64)
    for progress in (0.0, 0.1, 0.29, 0.31, 0.6, 1.0):
        view = view_of(networks, images, method.options(), progress, elapsed)
        loss = method.loss(view, images + 0.01).detach()
        assert torch.equal(values.setdefault(method.phase(view.options, progress), loss), loss)
        torch.testing.assert_close(
            method.objective(view, images + 0.01),
            method.objective(view_of(networks, images, method.options(), elapsed=elapsed), images + 0.01),
        )
    assert len(values) == (2 if name in INTROSPECTIVE else 1)


def test_iad_asks_the_teacher_about_the_searched_point_in_the_second_phase_only(networks, images):
    teacher = Counting(networks[1])
    view = view_of((networks[0], teacher), images, METHODS["iad"].options(), progress=0.29)
    METHODS["iad"].loss(view, images + 0.01)
    assert [asked is images for asked in teacher.asked] == [True]


@pytest.mark.parametrize(
    ("name", "part"),
    [("trades", METHODS["trades"].objective), ("iad", METHODS["iad"].loss), ("adaiad", METHODS["adaiad"].loss)],
)
def test_the_clean_answer_of_the_student_is_not_detached_in_the_outer_divergence(name, part, networks, images):
    """For TRADES that divergence is its objective, seen with a student that learns."""
    student, teacher = networks
    options, points = METHODS[name].options(), (images + 0.05).clamp(0, 1)

    def detached(x):
        return student(x).detach() if x is images else student(x)

    gradients = [
        torch.autograd.grad(part(view_of((s, teacher), images, options, progress=1.0), points).sum(), student.W)[0]
        for s in (student, detached)
    ]
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()


@pytest.mark.parametrize("name", INTROSPECTIVE)
def test_the_weight_of_introspection_has_no_gradient(name, networks, images):
    _, teacher = networks
    options = METHODS[name].options()
    points = (images + 0.05).clamp(0, 1).requires_grad_()
    loss = METHODS[name].loss(view_of(networks, images, options, progress=1.0), points).sum()
    assert torch.autograd.grad(loss, teacher.W, allow_unused=True) == (None,)


@pytest.mark.parametrize("name", INTROSPECTIVE)
def test_the_second_phase_starts_at_its_fraction_of_the_epochs(name, networks, images):
    method, points = METHODS[name], (images + 0.05).clamp(0, 1)

    def loss(epoch, **fields):
        progress = 391 * epoch / (391 * 200)
        return method.loss(view_of(networks, images, method.options(**fields), progress), points)

    first, second = loss(0), loss(199)
    assert (second > first).all()
    assert torch.equal(loss(59.99), first)
    assert torch.equal(loss(60), second)
    assert torch.equal(loss(60, second_phase=0.5), first)
    assert torch.equal(loss(0, second_phase=0), second)


def test_akd_at_full_labels_is_pgd_at(networks, images):
    akd = METHODS["akd"].loss(view_of(networks, images, METHODS["akd"].options(k=0)), images)
    torch.testing.assert_close(akd, PGD_AT.loss(view_of(networks, images, PgdAtOptions()), images))


def test_the_defaults_of_every_method_are_the_published_ones():
    found = {
        name: (m.start, m.search_mode, m.reduction, m.schedule.weight_decay, m.schedule.epochs, m.schedule.milestones)
        for name, m in METHODS.items()
    }
    assert found == PUBLISHED
    assert list(METHODS) == list(PUBLISHED)


def test_adr_labels_have_no_gradient_and_trust_the_average_less_where_it_is_wrong(networks, images):
    student, average = networks
    method, points = METHODS["adr"], (images + 0.05).clamp(0, 1)
    view = view_of((student, average), images, method.options())
    assert torch.autograd.grad(method.loss(view, points).sum(), average.W, allow_unused=True) == (None,)
    sure = torch.zeros(5, 4, dtype=torch.float64)
    sure[:, 0] = 400.0
    view = view_of((student, lambda x: sure), images, method.options())
    hard = METHODS["pgd-at"].loss(view_of((student, None), images, PgdAtOptions()), points)
    torch.testing.assert_close(method.loss(view, points), hard)  # right and sure, or wrong and sure: the label alone


def test_clean_statistics_forward_the_clean_images_and_change_no_loss(networks, images):
    student, teacher = Counting(networks[0]), networks[1]
    losses = [
        ADAAD.loss(view_of((student, teacher), images, AdaAdOptions(clean_statistics=option)), images + 0.01)
        for option in (False, True)
    ]
    torch.testing.assert_close(*losses)
    assert [x is images for x in student.asked] == [False, False, True]


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
