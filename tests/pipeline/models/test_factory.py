"""A network of one's own, by the name of the function that makes it: taught, teaching, exported and judged."""

import random
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.models import Blueprint
from pipeline.models.checkpoint import NetworkCard, load_checkpoint, save_checkpoint
from pipeline.models.factory import check_learns, check_made, made_by
from pipeline.recipe.schema import load_recipe
from pipeline.recipe.tables import TeacherTable
from pipeline.runs.teacher import load_teacher
from runtime.bundle.manifest import InputShape
from runtime.cli import main
from runtime.errors import BadRecipe

SOURCE = """
import random

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


class Spare(Net):
    def __init__(self, channels, classes):
        super().__init__(channels, classes)
        self.head = nn.Linear(8, classes)


def leaves_a_layer_out(channels, classes):
    return Spare(channels, classes)


def cuts_its_gradient(channels, classes):
    net = Net(channels, classes)
    net.model[3].register_forward_pre_hook(lambda part, inputs: (inputs[0].detach(),) if part.training else None)
    return net


def freezes_its_stem(channels, classes):
    net = Net(channels, classes)
    net.model[0].requires_grad_(False)
    return net


def freezes_a_spare_layer(channels, classes):
    net = Spare(channels, classes)
    net.head.requires_grad_(False)
    return net


class Skipping(nn.Module):
    def __init__(self, channels, classes, share):
        super().__init__()
        self.stem, self.block, self.deep = (nn.Conv2d(wide, 8, 3, padding=1) for wide in (channels, 8, 8))
        self.head = nn.Linear(8, classes)
        self.share = share

    def forward(self, x):
        x = self.stem(x)[..., ::2, ::2]
        for block in (self.block, self.deep):
            if not self.training or random.random() >= self.share:
                x = x + block(x).relu()
        return self.head(x.mean((2, 3)))


def skips_layers_at_random(channels, classes):
    return Skipping(channels, classes, 0.5)


def skips_layers_always(channels, classes):
    return Skipping(channels, classes, 1)


class Auxiliary(Net):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


def answers_twice_in_training(channels, classes):
    return Auxiliary(channels, classes)


class Rounding(Net):
    def forward(self, x):
        return super().forward((8 * x).round() / 8)


def rounds_images(channels, classes):
    return Rounding(channels, classes)


class Detached(Net):
    def forward(self, x):
        return super().forward(x.detach())


def detaches_images(channels, classes):
    return Detached(channels, classes)


class StraightThrough(Net):
    def forward(self, x):
        return super().forward(x + ((8 * x).round() / 8 - x).detach())


def rounds_straight_through(channels, classes):
    return StraightThrough(channels, classes)


def starts_at_zero(channels, classes):
    net = Net(channels, classes)
    nn.init.zeros_(net.model[-1].weight)
    return net


class Bounded(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        wide = [channels, *[64] * 12]
        layers = [(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in zip(wide, wide[1:])]
        self.body = nn.Sequential(*[part for layer in layers for part in layer])
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3))).clamp(-1, 1)


def bounds_its_logits(channels, classes):
    return Bounded(channels, classes)


class OnlyInTraining(Spare):
    def forward(self, x):
        features = self.model[:-1](x)
        return self.model[-1](features) + (self.head(features) if self.training else 0)


def has_a_head_for_training(channels, classes):
    return OnlyInTraining(channels, classes)


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
    for check in (check_made, check_learns):
        check(factory, network, (3, 16, 16), 5)
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
        ("answers_twice_in_training", r"three images, in training mode, with tuple"),
        ("skips_layers_always", r"block\.weight, block\.bias, deep\.weight, \.\.\. get no gradient"),
        ("rounds_images", "no gradient at the images"),
        ("detaches_images", "no gradient at the images"),
        ("leaves_a_layer_out", r"head\.weight, head\.bias get no gradient"),
        ("cuts_its_gradient", r"model\.0\.weight, model\.0\.bias, model\.1\.weight, \.\.\. get no gradient"),
    ],
)
def test_what_cannot_be_trained_or_judged_is_refused_before_it_learns(nets, function, said):
    with pytest.raises(BadRecipe, match=said) as raised:
        checked(f"{nets}:{function}")
    assert raised.value.hint


@pytest.mark.parametrize("seed", range(10))
def test_a_layer_that_is_skipped_at_random_is_no_layer_without_a_gradient(nets, seed):
    random.seed(seed)
    checked(f"{nets}:skips_layers_at_random")


@pytest.mark.parametrize(
    "function", ["rounds_straight_through", "starts_at_zero", "bounds_its_logits", "has_a_head_for_training"]
)
def test_what_passes_a_gradient_to_the_images_is_taken(nets, function):
    checked(f"{nets}:{function}")


def test_a_layer_that_only_training_mode_uses_cannot_learn_through_int8(nets):
    factory = f"{nets}:has_a_head_for_training"
    network = made_by(factory, channels=3, classes=5, mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.raises(BadRecipe, match=r"head\.weight, head\.bias get no gradient in evaluation mode"):
        check_learns(factory, network, (3, 16, 16), 5, training=False)


@pytest.mark.parametrize("function", ["make", "freezes_its_stem", "freezes_a_spare_layer"])
def test_the_check_of_what_learns_leaves_a_network_as_it_was(nets, function):
    network = checked(f"{nets}:{function}")
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [int(count) for name, count in network.named_buffers() if name.endswith("num_batches_tracked")] == [0, 0]


def test_a_teacher_of_ones_own_may_be_frozen(nets, tmp_path):
    network = made_by(f"{nets}:frozen", channels=3, classes=5, mean=(0.5,) * 3, std=(0.25,) * 3)
    torch.save(network.network.state_dict(), tmp_path / "teacher.pt")
    card = NetworkCard(
        arch="resnet18",
        input=InputShape(channels=3, height=16, width=16),
        classes=tuple("abcde"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    table = TeacherTable(path=tmp_path / "teacher.pt", factory=f"{nets}:frozen", mean=(0.5,) * 3, std=(0.25,) * 3)
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(load_teacher(table, card)[0](x), network.eval()(x))


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


METHODS = pytest.mark.parametrize(
    ("method", "also"), [("adaad", []), ("pgd-at", ["train.awp=0.005", "train.ema=0.9"]), ("adr", [])]
)


def trained_and_first(factory, method, *also):
    """Train the network of a factory for a few steps; return its weights by name, and those that it began with."""
    overrides = [
        f"student.factory={factory}",
        f"method.name={method}",
        *("train.batch=32", "search.steps=1", "data.holdout=40", *also),
    ]
    asked = [word for override in overrides for word in ("--set", override)]
    found = CliRunner().invoke(main, ["distill", "fashion-mini", *asked, "--out", "run"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    torch.manual_seed(load_recipe("run/recipe.toml").seed)  # as a run seeds the initial weights
    first = made_by(factory, channels=1, classes=10, mean=(0.0,), std=(1.0,)).state_dict()
    return load_checkpoint(Path("run/student.last.safetensors"))[0].state_dict(), first


@METHODS
def test_a_student_with_a_frozen_stem_learns_all_but_the_stem(nets, method, also):
    trained, first = trained_and_first(f"{nets}:freezes_its_stem", method, "train.max_steps=2", *also)
    equal = {name for name, tensor in first.items() if torch.equal(tensor, trained[name])}
    names = {f"network.model.{layer}.{what}" for layer in (0, 1, 3, 5, 9) for what in ("weight", "bias")}
    assert equal & names == {"network.model.0.weight", "network.model.0.bias"}


@METHODS
def test_a_student_that_skips_layers_at_random_learns_all_of_them(nets, method, also):
    random.seed(0)
    trained, first = trained_and_first(
        f"{nets}:skips_layers_at_random", method, "train.max_steps=8", "train.micro_batches=2", *also
    )
    assert [name for name, tensor in first.items() if torch.equal(tensor, trained[name])] == []


def test_a_student_with_a_layer_that_no_answer_needs_is_refused_before_it_learns(nets):
    asked = ["--set", f"student.factory={nets}:leaves_a_layer_out", "--out", "run"]
    found = CliRunner().invoke(main, ["distill", "fashion-mini", *asked])
    assert found.exit_code == 3, found.output
    assert "head.weight, head.bias get no gradient" in found.stderr
    assert not Path("run/summary.json").exists()


def test_a_teacher_whose_code_came_to_round_its_images_is_refused(nets, tmp_path):
    """Its accuracy under PGD would be nearly the clean one."""
    card = NetworkCard(
        factory=f"{nets}:rounds_images",
        input=InputShape(channels=3, height=16, width=16),
        classes=tuple("abcde"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    save_checkpoint(tmp_path / "teacher.safetensors", card.build(), card)
    with pytest.raises(BadRecipe, match="no gradient at the images"):
        load_teacher(TeacherTable(path=tmp_path / "teacher.safetensors"), card)
