"""Benchmarks run by hand and seldom: what they import must still be there."""

import importlib

import pytest

from tests.paths import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", [path.stem for path in BENCHMARKS])
def test_a_benchmark_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").main
