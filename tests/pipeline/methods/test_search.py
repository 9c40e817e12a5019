import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods import METHODS, View
from pipeline.methods.pgd_at import PgdAtOptions
from pipeline.methods.search import STARTS, SearchSpec, search
from tests.pipeline.conftest import Linear


def view_of(images, student):
    return View(images, torch.arange(len(images)) % 4, student, None, PgdAtOptions(), 0.0)


def run(images, student, start, spec, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = STARTS[start](images, spec.eps, generator)
    return search(METHODS["pgd-at"].objective, view_of(images, student), noise, spec)


@settings(deadline=None, max_examples=40)
@given(
    eps=st.floats(0, 0.5),
    step=st.floats(0, 0.5),
    steps=st.integers(0, 4),
    start=st.sampled_from(sorted(STARTS)),
    seed=st.integers(0, 1000),
)
def test_search_never_leaves_the_ball_or_the_box(eps, step, steps, start, seed):
    images = torch.rand(3, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    images[0] = 0
    images[1] = 1
    points = run(images, Linear(seed), start, SearchSpec(eps=eps, step=step, steps=steps), seed)
    assert (points - images).abs().max() <= eps + 1e-12
    assert points.min() >= 0
    assert points.max() <= 1


@pytest.mark.parametrize("start", STARTS)
def test_search_finds_the_corner_that_a_linear_loss_asks_for(start):
    images, student = torch.full((4, 1, 3, 4), 0.5, dtype=torch.float64), Linear(3, classes=2)
    view = View(images, torch.zeros(4, dtype=torch.int64), student, None, PgdAtOptions(), 0.0)
    spec = SearchSpec(eps=0.1, step=0.05, steps=6)
    noise = STARTS[start](images, spec.eps, torch.Generator().manual_seed(0))
    points = search(METHODS["pgd-at"].objective, view, noise, spec)
    corner = images + 0.1 * (student.W[1] - student.W[0]).sign().view(1, 1, 3, 4)
    torch.testing.assert_close(points, corner.detach())


def test_search_moves_no_running_statistics_and_leaves_no_weight_gradient(trained_like):
    before = {name: tensor.clone() for name, tensor in trained_like.state_dict().items()}
    images = torch.rand(4, 1, 28, 28)
    points = run(images, trained_like, "gaussian", SearchSpec(steps=2))
    assert not points.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained_like.state_dict().items())
    assert all(parameter.grad is None for parameter in trained_like.parameters())


def test_search_is_repeated_by_its_seed_and_changed_by_another():
    images = torch.rand(4, 1, 3, 4, dtype=torch.float64)
    spec = SearchSpec(steps=0)
    first, again, other = (run(images, Linear(0), "uniform", spec, seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_steps_in_a_ball_of_radius_zero_is_clean_training():
    images = torch.rand(4, 1, 3, 4, dtype=torch.float64)
    assert torch.equal(run(images, Linear(0), "gaussian", SearchSpec(eps=0, steps=0)), images)
