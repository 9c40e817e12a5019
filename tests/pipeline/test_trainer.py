import pytest
import torch

from pipeline.models import build_network
from pipeline.recipe import TrainTable, load_recipe
from pipeline.trainer import Trainer, learning_rate


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(16, 1, 28, 28, generator=generator), torch.arange(16) % 10


def trainer(seed=0, overrides=(), precision="fp32"):
    recipe = load_recipe("fashion-mini", ["search.steps=1", f"seed={seed}", *overrides])
    torch.manual_seed(seed)
    student, teacher = (build_network("resnet18", channels=1, classes=10, width=0.125) for _ in range(2))
    own_teacher = teacher if recipe.method.name == "adaad" else None
    return Trainer(recipe, student, own_teacher, classes=10, precision=precision)


def steps(trainer, batch, count):
    return [trainer.step(*batch, number=number, steps_per_epoch=10, steps=20) for number in range(count)]


@pytest.mark.parametrize("method", ["adaad", "pgd-at"])
def test_the_loss_on_one_batch_falls(method, batch):
    losses = steps(trainer(overrides=[f"method.name={method}", "train.lr=0.02"]), batch, 12)
    assert losses[-1] < 0.7 * losses[0]


def test_bf16_learns_as_fp32_does(batch):
    """Within a step, not over steps: autocast keeps its copies of the weights until it is left."""
    overrides = ["method.name=pgd-at", "train.lr=0.02"]
    fp32, bf16 = (steps(trainer(overrides=overrides, precision=precision), batch, 8) for precision in ("fp32", "bf16"))
    assert bf16[-1] < 0.8 * bf16[0]
    assert bf16[-1] == pytest.approx(fp32[-1], rel=0.25)


def test_two_equal_seeds_give_equal_bits_and_another_seed_does_not(batch):
    runs = [trainer(seed) for seed in (1, 1, 2)]
    for run in runs:
        steps(run, batch, 3)
    first, again, other = (run.student.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_only_the_outer_step_moves_the_running_statistics(batch):
    run = trainer()
    steps(run, batch, 3)
    assert {int(count) for name, count in run.student.state_dict().items() if "num_batches" in name} == {3}
    assert run.student.training


def test_the_teacher_never_changes(batch):
    run = trainer()
    assert run.teacher is not None
    before = {name: tensor.clone() for name, tensor in run.teacher.state_dict().items()}
    steps(run, batch, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.teacher.state_dict().items())


def test_the_reduction_scales_the_loss(batch):
    batchmean = steps(trainer(), batch, 1)[0]
    mean = steps(trainer(overrides=["train.reduction=mean"]), batch, 1)[0]
    assert batchmean == pytest.approx(10 * mean, rel=1e-5)


def test_the_learning_rate_falls_tenfold_at_every_milestone():
    train = TrainTable(epochs=4, lr=0.1, milestones=(3.5, 2.0), reduction="mean")
    rates = [learning_rate(train, epoch) for epoch in (0, 1.99, 2.0, 3.49, 3.5)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
