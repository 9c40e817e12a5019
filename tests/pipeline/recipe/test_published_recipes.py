"""Every row of the paper is a packaged recipe and a few overrides: each resolves to what was published, and runs."""

import itertools

import numpy as np
import pytest
import torch

from pipeline.methods import METHODS
from pipeline.methods.search import SearchSpec
from pipeline.models import build_network
from pipeline.recipe.schema import load_recipe
from pipeline.runs.distill import distill
from pipeline.runs.teacher import TEACHERS

SETS = {
    "cifar10": ["cifar10/Linf/Chen2021LTD_WRN34_20", "cifar10/Linf/Chen2021LTD_WRN34_10"],
    "cifar100": ["cifar100/Linf/Chen2021LTD_WRN34_10"],
}
STUDENTS = ["resnet18", "mobilenet_v2"]
# epochs, milestones, weight decay, reduction on CIFAR-10 and on CIFAR-100
PUBLISHED = {
    "pgd-at": (110, (100, 105), 5e-4, "batchmean", "batchmean"),
    "trades": (200, (100, 150), 2e-4, "batchmean", "batchmean"),
    "ard": (200, (100, 150), 2e-4, "mean", "mean"),
    "iad": (200, (100, 150), 2e-4, "batchmean", "batchmean"),
    "rslad": (300, (215, 260, 285), 2e-4, "mean", "mean"),
    "akd": (200, (100, 150), 5e-4, "batchmean", "batchmean"),
    "adaad": (200, (100, 150), 5e-4, "mean", "batchmean"),
    "adaiad": (200, (100, 150), 5e-4, "batchmean", "batchmean"),
    "adr": (200, (100, 150), 5e-4, "batchmean", "batchmean"),
}
ROWS = [
    (data, student, teacher, method)
    for data, teachers in SETS.items()
    for student, teacher, method in itertools.product(STUDENTS, teachers, PUBLISHED)
]
OPTIONS = {
    ("cifar10", "rslad"): {"searched": 5 / 6, "clean": 1 / 6},
    ("cifar100", "rslad"): {"searched": 50 / 6, "clean": 10 / 6},
    ("cifar10", "trades"): {"beta": 6},
    ("cifar100", "ard"): {"temperature": 30},
    ("cifar10", "adaiad"): {"temperature": 30, "second_phase": 0.3, "b": 0.1},
    ("cifar100", "adaad"): {"alpha": 1, "direction": "teacher_student", "clean_statistics": True},
}


@pytest.mark.parametrize(("data", "student", "teacher", "method"), ROWS)
def test_every_row_resolves_to_the_published_setting(data, student, teacher, method):
    recipe = load_recipe(data, [f"student.arch={student}", f"teacher.name={teacher}", f"method.name={method}"])
    epochs, milestones, weight_decay, *reductions = PUBLISHED[method]
    train = recipe.train
    assert (train.epochs, train.milestones, train.weight_decay) == (epochs, milestones, weight_decay)
    assert train.reduction == reductions[list(SETS).index(data)]
    assert (train.lr, train.momentum, train.batch) == (0.1, 0.9, 128)
    assert recipe.search == SearchSpec(eps=8 / 255, step=2 / 255, steps=10)
    assert (recipe.student.arch, recipe.student.width) == (student, 1.0)
    assert (recipe.data.name, recipe.data.crop, recipe.data.flip) == (data, 4, True)
    assert recipe.teacher is not None
    assert recipe.teacher.name in TEACHERS
    assert recipe.threat.eps == 8 / 255
    expected = OPTIONS.get((data, method), {})
    assert {key: getattr(recipe.method.options, key) for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(("data", "temperature"), [("cifar10", (2.5, 2.0)), ("cifar100", (1.5, 1.0))])
def test_adr_softens_as_its_published_code_does_on_each_set(data, temperature):
    options = load_recipe(data, ["method.name=adr"]).method.options
    assert (options.decay, options.temperature, options.interpolation) == (0.995, temperature, (0.7, 0.95))


@pytest.mark.parametrize("data", SETS)
def test_without_overrides_it_is_adaad_on_a_resnet_18_with_the_papers_teacher(data):
    recipe = load_recipe(data)
    assert (recipe.method.name, recipe.student.arch) == ("adaad", "resnet18")
    assert recipe.teacher is not None
    assert recipe.teacher.name == SETS[data][0]


@pytest.mark.parametrize(("eps", "step"), [(8, 2), (10, 2.5), (12, 3), (14, 3.5), (16, 4), (24, 6)])
def test_the_search_radius_is_swept_by_overrides_and_leaves_the_threat_as_it_is(eps, step):
    recipe = load_recipe("cifar10", [f"search.eps={eps}/255", f"search.step={step}/255"])
    assert recipe.search == SearchSpec(eps=eps / 255, step=step / 255, steps=10)
    assert recipe.threat.eps == 8 / 255


def test_the_best_known_setting_is_as_it_was_reported():
    recipe, train = load_recipe("cifar10-best"), load_recipe("cifar10-best").train
    data, method = recipe.data, recipe.method
    assert (data.name, data.holdout, data.augment, data.augment_switch) == (
        "cifar10", 5000, "cropshift", (100, "idbh-weak")
    )  # fmt: skip
    assert (method.name, method.options.searched, method.options.clean) == ("rslad", 5 / 6, 1 / 6)
    assert (train.epochs, train.milestones, train.weight_decay, train.reduction) == (200, (100, 150), 5e-4, "batchmean")
    assert (train.lr, train.momentum, train.batch) == (0.1, 0.9, 128)
    assert recipe.search == SearchSpec(eps=8 / 255, step=2 / 255, steps=10)
    assert recipe.teacher is not None
    assert recipe.teacher.name == "cifar10/Linf/Chen2021LTD_WRN34_10"
    assert (recipe.student.arch, recipe.student.width) == ("resnet18", 1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A set and a teacher in RobustBench's layout, for 10 and for 100 classes: overrides by name of the recipe."""
    folder, overrides = tmp_path_factory.mktemp("tiny"), {}
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        random, place = np.random.default_rng(0), folder / name
        place.mkdir()
        for split, count in (("train", 160), ("test", classes)):
            images = random.integers(0, 256, (count, 3, 32, 32), np.uint8)
            np.savez(place / f"{split}.npz", x=images, y=np.arange(count) % classes)
        teacher = build_network("wideresnet", channels=3, classes=classes, width=0.5, depth=10)
        torch.save({f"module.{key}": value for key, value in teacher.state_dict().items()}, place / "teacher.pt")
        described = f"path='{place}/teacher.pt', arch='wideresnet', depth=10, width=0.5"
        overrides[name] = [f"data={{path='{place}', holdout=16}}", f"teacher={{{described}}}"]
    return overrides


SMALL = ["student.width=0.0625", "train.batch=8", "train.max_steps=2", "search.steps=2"]
RUN = [
    ("cifar10", "resnet18", "adaad"),
    ("cifar10", "mobilenet_v2", "rslad"),
    ("cifar10", "wideresnet", "trades"),
    ("cifar10", "mobilenet_v2", "iad"),
    ("cifar100", "resnet18", "adaiad"),
    ("cifar100", "mobilenet_v2", "adaad"),
    ("cifar100", "resnet18", "rslad"),
    ("cifar100", "resnet18", "pgd-at"),
    ("cifar10", "resnet18", "adr"),
]


@pytest.mark.parametrize(("data", "student", "method"), RUN)
def test_a_row_at_tiny_widths_runs_for_two_steps(data, student, method, tiny, tmp_path):
    wide = ["student.depth=10"] if student == "wideresnet" else []
    rows = [f"student.arch={student}", f"method.name={method}", *wide]
    recipe = load_recipe(data, [*tiny[data], *SMALL, *rows])
    summary = distill(recipe, tmp_path / "run", allow_weak_teacher=True)
    assert (summary.method, summary.steps) == (method, 2)
    assert (summary.teacher is not None) == METHODS[method].needs_teacher
