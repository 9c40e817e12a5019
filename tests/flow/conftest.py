"""One small trained run and its bundle, shared by the tests of the whole way."""

import pytest

from pipeline.distill import distill
from pipeline.recipe import load_recipe
from tests.flow.commands import edgeproof

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
