"""A study of two cells that takes seconds: tiny images, tiny networks, two optimiser steps."""

import numpy as np
import pytest

from pipeline.study.plan import load_study

STUDY = """
name = "tiny"
recipe = "{recipe}"
methods = ["pgd-at", "trades"]
students = ["resnet18"]
reference = "pgd-at"
published = "cifar10-wrn34-20"

[[evaluation]]
name = "gradient"
attacks = ["fgsm", "pgd"]
n = 20
"""
RECIPE = """
name = "tiny"

[data]
path = "{data}"
holdout = 20

[student]
arch = "resnet18"
width = 0.0625

[method]
name = "pgd-at"

[search]
steps = 1

[train]
epochs = 1
max_steps = 2
batch = 16
milestones = []
reduction = "batchmean"
"""


def write_data(folder):
    """Write three classes of noisy 8x8 images, told apart by their brightness, into a folder; return it."""
    random = np.random.default_rng(0)
    for split, n in (("train", 80), ("test", 40)):
        y = random.integers(0, 3, n)
        x = (60 + 60 * y[:, None, None, None] + random.integers(0, 40, (n, 1, 8, 8))).astype(np.uint8)
        np.savez(folder / f"{split}.npz", x=x, y=y)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def write_study(folder, data):
    """Write a recipe and a study of it into a folder; return the study's path."""
    (folder / "recipe.toml").write_text(RECIPE.format(data=data))
    (folder / "study.toml").write_text(STUDY.format(recipe=folder / "recipe.toml"))
    return folder / "study.toml"


@pytest.fixture
def study_file(data, tmp_path):
    return write_study(tmp_path, data)


@pytest.fixture
def study(study_file):
    return load_study(str(study_file))
