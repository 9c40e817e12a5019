"""The methods in a training loop of one's own: the published formulas, by no code of ours."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgeproof as ep
from pipeline.methods import METHODS
from runtime.errors import BadData, UsageFault

EPS, STEP = 8 / 255, 2 / 255
CLASSES = {cls.name: cls for cls in ep.methods.TrainingMethod.__subclasses__()}


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).double()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 3, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(3, (6,), generator=generator)


def kl(p, q):
    return F.kl_div(F.log_softmax(q, 1), F.softmax(p, 1), reduction="none").sum(1)


def ascend(images, objective, seed, steps=10):
    noise = 0.001 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    x = images + noise
    x = x.clamp(images - EPS, images + EPS).clamp(0, 1)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(objective(x).sum(), x)
        x = (x.detach() + STEP * g.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    return x.detach()


def made(name, student, **settings):
    teacher = network(1) if METHODS[name].needs_teacher else None
    if name == "adr":
        return CLASSES[name](student, torch.optim.SGD(student.parameters(), lr=0.1), **settings)
    return CLASSES[name](student, *([teacher] if teacher else []), **settings)


def test_each_method_of_recipes_is_there_by_a_class():
    assert set(CLASSES) == set(METHODS)
    assert set(ep.methods.__all__) == {cls.__name__ for cls in CLASSES.values()} | {"TrainingMethod"}


def test_the_loss_of_adaad_is_the_papers():
    student, teacher, (images, labels) = network(0), network(1), batch()
    loss = ep.methods.AdaAD(student, teacher, eps=EPS, steps=10, seed=5).loss(images, labels)
    loss.backward()
    gradients = [p.grad for p in student.parameters()]

    other, judge = network(0), network(1).eval()
    other.eval()
    points = ascend(images, lambda x: kl(judge(x), other(x)), 5)
    other.train()
    expected = kl(judge(points).detach(), other(points)).mean() / 3
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for gradient, parameter in zip(gradients, other.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)
    for own, its in zip(student.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(own, its)


def test_the_loss_of_trades_is_the_papers():
    student, (images, labels) = network(0), batch()
    loss = ep.methods.TRADES(student, beta=6.0, seed=2).loss(images, labels)
    other = network(0).eval()
    clean = other(images).detach()
    points = ascend(images, lambda x: kl(clean, other(x)), 2)
    other.train()
    expected = (F.cross_entropy(other(images), labels, reduction="none") + 6 * kl(other(images), other(points))).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_method_searches_in_the_ball_and_lowers_its_loss(name):
    student, (images, labels) = network(0), batch()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    teacher = [network(1)] if METHODS[name].needs_teacher else [optimizer] if name == "adr" else []
    method = CLASSES[name](student, *teacher, seed=1)
    points = method.search(images, labels, progress=0.5)
    assert (points - images).abs().max() <= EPS + 1e-12
    assert 0 <= points.min() <= points.max() <= 1
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = method.loss(images, labels, progress=0.5)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_search_leaves_the_modes_as_they_were():
    student = network(0).train()
    student[1].eval()
    made("adaad", student).search(*batch())
    assert [module.training for module in student] == [True, False, True, True, True, True]


def test_a_teacher_never_learns():
    student, teacher = network(0), network(1).train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    ep.methods.AdaAD(student, teacher).loss(*batch()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_adr_asks_for_the_optimizer_where_it_is_given_a_teacher():
    with pytest.raises(UsageFault, match="optimizer of adr is of type Sequential") as caught:
        ep.methods.ADR(network(0), network(1))
    assert caught.value.hint == "ADR(student, optimizer): no teacher"
    student = network(0)
    with pytest.raises(UsageFault, match="adr takes no teacher") as caught:
        ep.methods.ADR(student, torch.optim.SGD(student.parameters()), teacher=network(1))
    assert caught.value.hint == "ADR(student, optimizer)"


def test_the_average_of_adr_follows_each_step_of_the_optimizer():
    student = network(0)
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    method = ep.methods.ADR(student, optimizer, decay=0.5)
    before = method.teacher[0].weight.clone()
    method.loss(*batch(), progress=0.0).backward()
    optimizer.step()
    torch.testing.assert_close(method.teacher[0].weight, (before + student[0].weight.detach()) / 2)


@pytest.mark.parametrize("name", ["iad", "adaiad", "adr"])
def test_what_changes_as_training_goes_on_asks_how_far_it_is(name):
    with pytest.raises(UsageFault, match="changes as training goes on"):
        made(name, network(0)).loss(*batch())


def test_what_is_the_same_to_the_end_asks_for_no_progress():
    assert made("adaad", network(0)).loss(*batch()).isfinite()


@pytest.mark.parametrize("progress", [-0.1, 1.5, math.nan])
def test_a_progress_that_is_no_fraction_is_refused(progress):
    with pytest.raises(UsageFault, match="progress is"):
        made("iad", network(0)).loss(*batch(), progress=progress)


def test_images_that_were_normalised_outside_are_refused():
    images, labels = batch()
    with pytest.raises(BadData, match="values from"):
        made("pgd-at", network(0)).loss((images - 0.5) / 0.25, labels)


def test_labels_of_another_shape_are_refused():
    images, labels = batch()
    with pytest.raises(BadData, match=r"labels torch\.int64 of shape"):
        made("pgd-at", network(0)).loss(images, F.one_hot(labels))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("adaad", {"alpha": 2}, "alpha"),
        ("adaad", {"temperature": 3}, "temperature"),
        ("trades", {"igdm": 1.0}, "has none"),
        ("akd", {"start": "published"}, "no published code"),
        ("adaad", {"steps": -1}, "steps"),
    ],
)
def test_an_option_that_a_method_has_not_is_refused(name, settings, said):
    with pytest.raises(UsageFault, match=said):
        made(name, network(0), **settings)


def test_a_method_that_needs_a_teacher_says_so():
    with pytest.raises(UsageFault, match="takes a teacher"):
        ep.methods.AdaAD(network(0))
    with pytest.raises(UsageFault, match="takes no teacher"):
        ep.methods.PGDAT(network(0), network(1))
