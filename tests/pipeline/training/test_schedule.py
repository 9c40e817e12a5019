"""The learning rate, against PyTorch's own schedulers and against its formulas; and what no schedule can be."""

import math

import pytest
import torch

from pipeline.recipe.schema import load_recipe
from pipeline.training.schedule import learning_rate
from runtime.errors import BadRecipe

EPOCHS, PER_EPOCH, LR = 8, 5, 0.3
STEPS = EPOCHS * PER_EPOCH


def table(*overrides):
    own = [f"train.epochs={EPOCHS}", f"train.lr={LR}", *overrides]
    return load_recipe("fashion-mini", ["method.name=pgd-at", *own]).train


def rates(*overrides):
    train = table(*overrides)
    return [learning_rate(train, step / PER_EPOCH) for step in range(STEPS)]


def torchs(scheduler, **arguments):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, momentum=0.9)
    made = scheduler(optimiser, **arguments)
    found = []
    for _ in range(STEPS):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        made.step()
    return found


SCHEDULERS = torch.optim.lr_scheduler


def test_steps_are_torchs_multi_step():
    expected = torchs(SCHEDULERS.MultiStepLR, milestones=[10, 35])
    assert rates("train.milestones=[7, 2]") == pytest.approx(expected)


def test_milestones_are_passed_at_their_very_epoch():
    train = table("train.milestones=[3.5, 2.0]", "train.lr=0.1")
    found = [learning_rate(train, epoch) for epoch in (0, 1.99, 2.0, 3.49, 3.5)]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_cosine_is_torchs():
    assert rates("train.schedule=cosine") == pytest.approx(torchs(SCHEDULERS.CosineAnnealingLR, T_max=STEPS))


@pytest.mark.parametrize("warmup", [1, 2, 4.2])
def test_one_cycle_is_torchs_in_straight_lines_from_nothing_to_nothing(warmup):
    """PyTorch's reaches its end at the last step, ours after it: so its cycle is of one step more."""
    peak, whole = warmup * PER_EPOCH, STEPS + 1
    expected = torchs(
        SCHEDULERS.OneCycleLR,
        max_lr=LR,
        total_steps=whole,
        pct_start=(peak + 1) / whole,
        anneal_strategy="linear",
        div_factor=1e12,
        final_div_factor=1.0,
    )
    assert rates("train.schedule=one-cycle", f"train.warmup={warmup}") == pytest.approx(expected, abs=1e-9)


def test_a_warm_up_is_torchs_linear_one_before_what_the_schedule_says():
    rising = torchs(SCHEDULERS.LinearLR, start_factor=1e-12, total_iters=10)[:10]
    for schedule, falling in (("steps", [LR] * (STEPS - 10)), ("cosine", None)):
        found = rates(f"train.schedule={schedule}", "train.warmup=2", "train.milestones=[]")
        assert found[:10] == pytest.approx(rising, abs=1e-9)
        falling = falling or [LR * (1 + math.cos(math.pi * step / 30)) / 2 for step in range(30)]
        assert found[10:] == pytest.approx(falling)


def test_a_cycle_rises_for_a_quarter_where_no_warm_up_is_named_and_other_schedules_do_not_rise():
    assert table("train.schedule=one-cycle").warmup == 2
    assert table("train.schedule=one-cycle", "train.warmup=0").warmup == 0
    assert table("train.schedule=cosine").warmup == table().warmup == 0


def test_another_schedule_ends_the_milestones_of_the_recipe_beneath(tmp_path):
    assert table().milestones == (3.0,)
    assert table("train.schedule=cosine").milestones == ()
    assert load_recipe("cifar10", ["method.name=trades", "train.schedule=cosine"]).train.milestones == ()
    path = tmp_path / "own.toml"
    path.write_text('base = "fashion-mini"\n[train]\nschedule = "cosine"\n')
    assert load_recipe(str(path)).train.milestones == ()
    assert load_recipe(str(path), ["train.schedule=steps", "train.epochs=10"]).train.milestones == (5, 7.5)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.schedule=cycle"], r"train\.schedule: .*'one-cycle'"),
        (["train.schedule=3"], r"train\.schedule"),
        (["train.schedule=[1]"], r"train\.schedule"),
        (["train.schedule=cosine", "train.milestones=[2]"], r"train\.milestones: .*schedule = 'steps'"),
        (["train.warmup=4", "train.milestones=[3, 6]"], r"train\.milestones: .*3 is within the warm-up of 4 epochs"),
        (["train.warmup=8"], r"train\.warmup: .*8 of 8 epochs"),
        (["train.warmup=-1"], r"train\.warmup"),
        (["train.warmup=nan"], r"train\.warmup"),
        (["train.warmup='long'"], r"train\.warmup"),
        (["train.nesterov=true", "train.momentum=0"], r"train\.nesterov: .*train\.momentum is 0"),
        (["train.label_smoothing=1"], r"train\.label_smoothing"),
        (["train.label_smoothing=-0.1"], r"train\.label_smoothing"),
        (
            ["train.label_smoothing=0.1", "method.name=adaad"],
            "the loss of adaad has no label; those of pgd-at, trades, akd",
        ),
    ],
)
def test_a_schedule_that_is_none_is_refused(overrides, says):
    with pytest.raises(BadRecipe, match=says):
        table(*overrides)


def test_a_milestone_at_the_end_of_the_warm_up_is_one():
    assert rates("train.warmup=2", "train.milestones=[2]")[10] == pytest.approx(LR / 10)
