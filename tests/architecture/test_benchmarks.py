"""Benchmarks run by hand and seldom: what they import must still be there."""

import importlib

import pytest

from tests.paths import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
PARTS = ("tests", "check", "attacks", "training", "autoattack", "arithmetic", "__main__", "prepare")
"""Of the benchmark of a GPU: what is started by itself."""


@pytest.mark.parametrize("name", [path.stem for path in BENCHMARKS])
def test_a_benchmark_can_be_imported(name):
    if name == "autoattack":
        pytest.importorskip("torchattacks", reason="`make test` installs it, without its dependencies")
    assert importlib.import_module(f"benchmarks.{name}").main


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_benchmark_of_a_gpu_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.gpu.{name}").main
