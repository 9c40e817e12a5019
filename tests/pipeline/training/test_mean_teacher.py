"""A teacher that is an average of the student, and what changes with every step, in the trainer."""

import copy

import pytest
import torch
from torch import nn

from pipeline.models.layers import frozen
from pipeline.recipe.schema import Recipe
from pipeline.training.mean_teacher import MeanTeacher
from pipeline.training.trainer import Trainer
from tests.pipeline.runs.small_runs import CARD


@pytest.fixture
def batch():
    return torch.rand(8, 1, 8, 8), torch.arange(8) % 4


def trainer(method, teacher=None, **train):
    tables = {"data": {"path": "."}, "student": {"arch": "resnet18", "width": 0.0625}, "teacher": {"path": "t"}}
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            **tables,
            "method": method,
            "train": {"epochs": 1, "batch": 8, **train},
            "search": {"steps": 1},
        }
    )
    torch.manual_seed(0)
    return Trainer(recipe, CARD.build(), teacher, classes=4, precision="fp32")


def test_a_mean_teacher_is_the_average_of_weights_and_running_statistics_from_the_first_on():
    student = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    teacher = MeanTeacher(student, 0.75)
    expected = {name: value.clone() for name, value in student.state_dict().items() if value.is_floating_point()}
    for _ in range(3):
        student(torch.rand(4, 1, 5, 5))
        with torch.no_grad():
            student[0].weight.add_(1.0)
        teacher.follow()
        for name in expected:
            expected[name] = 0.75 * expected[name] + 0.25 * student.state_dict()[name]
    for name, value in expected.items():
        torch.testing.assert_close(teacher.network.state_dict()[name], value)
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_a_step_of_adr_learns_from_the_average_before_it_and_moves_the_average_after_it(batch):
    run = trainer({"name": "adr", "adr": {"decay": 0.5}}, lr=0.5)
    first = copy.deepcopy(run.student.state_dict())
    with torch.no_grad():
        answer = copy.deepcopy(run.student).eval()(batch[0])
    run.step(*batch, number=0, steps_per_epoch=4, steps=4)
    moved = run.mean_teacher.network.state_dict()
    for name, value in run.student.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(moved[name], (first[name] + value) / 2)
    asked = []
    run.teacher.register_forward_hook(lambda network, inputs, output: asked.append(output))
    run.step(*batch, number=1, steps_per_epoch=4, steps=4)
    assert len(asked) == 1
    assert not asked[0].requires_grad
    assert not torch.equal(asked[0], answer)


@pytest.mark.parametrize("method", [{"name": "adr"}, {"name": "rslad", "igdm": 20.0}])
def test_what_changes_with_every_step_is_read_where_the_trainer_keeps_it(method, batch):
    """As a captured step must: another number in the same place is another loss, though `progress` stays."""
    run = trainer(method, None if method["name"] == "adr" else frozen(CARD.build()))
    losses = []
    for elapsed in (0.25, 0.75):
        run._elapsed.fill_(elapsed)
        losses.append(run._learn(0.0, 1.0, True, *batch, (batch[0] + 0.01).clamp(0, 1))[0].item())
    assert losses[0] != losses[1]


def test_the_trainer_adds_igdm_by_how_far_the_run_is(batch):
    teacher = frozen(CARD.build())
    losses = {}
    for alpha in (None, 20.0):
        run = trainer({"name": "rslad", **({"igdm": alpha} if alpha else {})}, teacher)
        losses[alpha] = [float(run.step(*batch, number=step, steps_per_epoch=2, steps=2)) for step in range(2)]
    assert losses[None][0] == pytest.approx(losses[20.0][0], rel=1e-5)  # at the start it weighs nothing
    assert losses[20.0][1] > losses[None][1] + 1e-3
