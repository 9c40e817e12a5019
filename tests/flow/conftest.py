"""One small trained run and its bundle, shared by the tests of the whole way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.data.sets import load_dataset
from pipeline.recipe.schema import load_recipe
from pipeline.runs.distill import distill
from runtime.attacks import ATTACKS
from runtime.images.image_set import ImageSet
from tests.command_line import edgeproof
from tests.flow.plants import EPS, N, trained

SMALL = (
    "method.name=pgd-at",
    "student.width=0.125",
    "train.batch=64",
    "train.max_steps=60",
    "train.lr=0.05",
    "search.steps=1",
    "search.step=8/255",
    "data.holdout=100",
)

QUICK = {
    "apgd-ce": {"steps": 10},
    "apgd-t": {"steps": 5, "targets": 3},
    "fab-t": {"steps": 5, "targets": 1},
    "square": {"queries": 150},
}
"""Attacks short enough for a test; what the checks see is the same."""


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    distill(load_recipe("fashion-mini", SMALL), out)
    return out


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    out = tmp_path_factory.mktemp("signing") / "keys"
    assert edgeproof("key", "new", "--out", out).exit_code == 0
    return out


@pytest.fixture(scope="session")
def bundle(trained_run, keys):
    out = trained_run.parent / "bundle"
    result = edgeproof("export", trained_run, "--out", out, "--key", keys / "private.pem", "--version", 7)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def planting():
    data = load_dataset("fashion-mini", None)
    x, y = torch.from_numpy(data.train.as_float(slice(0, 6000))), torch.from_numpy(data.train.labels[:6000]).long()
    images = ImageSet("test", data.test.images[:N], data.test.labels[:N].astype(np.int64), np.arange(N))
    return trained(x, y, eps=EPS), trained(x, y, eps=0), images


@pytest.fixture
def shortened(monkeypatch):
    for name, settings in QUICK.items():
        monkeypatch.setitem(ATTACKS, name, replace(ATTACKS[name], defaults={**ATTACKS[name].defaults, **settings}))
