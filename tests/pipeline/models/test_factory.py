"""A network of one's own, by the name of the function that makes it: taught, teaching, exported and judged."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.models import Blueprint
from pipeline.models.checkpoint import NetworkCard, load_checkpoint, save_checkpoint
from pipeline.models.factory import check_made, made_by
from pipeline.recipe.schema import load_recipe
from runtime.bundle.manifest import InputShape
from runtime.cli import main
from runtime.errors import BadRecipe

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.model = nn.Sequential(  # a name that wrappers use too
            nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8, affine=False), nn.GroupNorm(2, 8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
        )

    def forward(self, x):
        return self.model(x)


def make(channels, classes):
    return Net(channels, classes)


def no_network(channels, classes):
    return "no network"


def breaks(channels, classes):
    raise KeyError("weights")


def too_few(channels, classes):
    return Net(channels, classes - 1)


def frozen(channels, classes):
    return Net(channels, classes).requires_grad_(False)


class Mixing(Net):
    def forward(self, x):
        return super().forward(x) - super().forward(x).mean(0)


def mixes(channels, classes):
    return Mixing(channels, classes)


class Modal(Net):
    def forward(self, x):
        x = super().forward(x)
        return x if type(self.model[1]) is nn.BatchNorm2d else 2 * x


def looks_at_its_layers(channels, classes):
    return Modal(channels, classes)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "own_nets_of_a_test.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.chdir(tmp_path)
    yield "own_nets_of_a_test"
    sys.modules.pop("own_nets_of_a_test", None)


def checked(factory):
    network = made_by(factory, channels=3, classes=5, mean=(0.5,) * 3, std=(0.25,) * 3)
    check_made(factory, network, (3, 16, 16), 5)
    return network


def test_a_function_in_the_working_directory_makes_the_network(nets):
    network = checked(f"{nets}:make")
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("no_network", "returns str"),
        ("breaks", "KeyError"),
        ("missing", "AttributeError"),
        ("too_few", r"answers three images with \(3, 4\)"),
        ("frozen", "the network has nothing to train"),
        ("mixes", "an image alone gives other logits than in a batch"),
        ("looks_at_its_layers", "another network"),
    ],
)
def test_what_cannot_be_trained_or_judged_is_refused_before_it_learns(nets, function, said):
    with pytest.raises(BadRecipe, match=said) as raised:
        checked(f"{nets}:{function}")
    assert raised.value.hint


def test_a_module_that_is_not_there_is_refused(nets):
    with pytest.raises(BadRecipe, match="ModuleNotFoundError"):
        checked("nowhere_at_all:make")


@pytest.mark.parametrize("factory", ["nets", "nets:", ":make", "a b:make", "nets:make()", "../nets:make"])
def test_a_name_of_no_function_is_refused_with_the_recipe(factory):
    with pytest.raises(BadRecipe, match="does not name a function"):
        load_recipe("fashion-mini", [f"student.factory={factory}"])


def test_a_factory_takes_the_place_of_a_bases_network_and_the_other_way_round():
    own = load_recipe("fashion-mini", ["student.factory=my.nets:make"]).student
    assert (own.arch, own.factory) == (None, "my.nets:make")
    known = load_recipe("fashion-mini", ["student.arch=mobilenet_v2"]).student
    assert (known.arch, known.width) == ("mobilenet_v2", 0.25)


def test_both_or_none_of_arch_and_factory_are_refused():
    for wrong in ({}, {"arch": "resnet18", "factory": "a:b"}, {"factory": "a:b", "width": 0.5}):
        with pytest.raises(ValueError, match="arch"):
            Blueprint(**wrong)


def test_a_checkpoint_says_nothing_of_a_factory_where_there_is_none(tmp_path):
    card = NetworkCard(
        arch="resnet18",
        width=0.0625,
        input=InputShape(channels=1, height=8, width=8),
        classes=("a", "b"),
        mean=(0.0,),
        std=(1.0,),
    )
    save_checkpoint(tmp_path / "net.safetensors", card.build(), card)
    assert b"factory" not in (tmp_path / "net.safetensors").read_bytes()
    assert load_checkpoint(tmp_path / "net.safetensors")[1] == card


def test_a_student_of_ones_own_is_taught_by_a_teacher_of_ones_own_and_judged_as_a_bundle(nets, tmp_path):
    torch.manual_seed(1)
    module = made_by(f"{nets}:make", channels=1, classes=10, mean=(0.0,), std=(1.0,)).network
    torch.save(module.state_dict(), "teacher.pt")
    run = CliRunner().invoke
    overrides = [
        f"student.factory={nets}:make",
        "teacher.path=teacher.pt",
        f"teacher.factory={nets}:make",
        *("train.max_steps=2", "train.batch=32", "search.steps=1", "data.holdout=40"),
    ]
    asked = [word for override in overrides for word in ("--set", override)]
    found = run(
        main, ["distill", "fashion-mini", *asked, "--allow-weak-teacher", "--out", "run"], catch_exceptions=False
    )
    assert found.exit_code == 0, found.output
    for words in (
        ["evaluate", "run", "--n", "64", "--attacks", "pgd", "--no-gate", "--out", "torch"],
        ["export", "run", "--out", "bundle"],
        ["verify", "bundle", "--n", "64", "--attacks", "pgd", "--no-gate", "--out", "report"],
    ):
        found = run(main, words, catch_exceptions=False)
        assert found.exit_code == 0, found.output
    torch_side, exported = (np.load(tmp_path / name / "evidence.npz") for name in ("torch", "report"))
    for array in ("index", "clean_prediction", "broken_by"):
        np.testing.assert_array_equal(torch_side[array], exported[array])
