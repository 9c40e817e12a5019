"""The base installation alone, in a virtual environment of its own: what a device has."""

import os
import sys

import pytest

from tests.architecture.environments import BUNDLE, install

HEAVY = ("torch", "torchvision", "onnx", "onnxscript", "jinja2", "matplotlib", "safetensors")

IMPORT_EVERYTHING = f"""
import importlib, pkgutil, sys, runtime
for module in pkgutil.walk_packages(runtime.__path__, "runtime."):
    importlib.import_module(module.name)
    print(module.name)
found = set({HEAVY!r}) & set(sys.modules)
sys.exit(f"imported: {{found}}" if found else 0)
"""

pytestmark = [pytest.mark.slow, pytest.mark.check]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """Return a function that runs a program of an environment with the base dependencies only."""
    return install(os.environ.get("DEVICE_PYTHON", sys.executable), tmp_path_factory.mktemp("device"))


def test_every_module_of_the_runtime_imports(device):
    result = device("python", "-c", IMPORT_EVERYTHING)
    assert result.returncode == 0, result.stderr
    assert "runtime.verdict.case" in result.stdout


def test_verify_judges_a_stored_bundle_without_pytorch(device, tmp_path):
    result = device("edgeproof", "verify", BUNDLE, "--out", tmp_path / "report")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("passed\n")
    assert "pip install '.[report]'" in result.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "run.json",
        "journal.jsonl",
        "report.json",
        "evidence.npz",
        "gallery.npz",
        "junit.xml",
        "summary.md",
    }


def test_a_gate_that_is_not_reached_ends_with_one(device, tmp_path):
    result = device("edgeproof", "verify", BUNDLE, "--fail-under", "99%", "--out", tmp_path / "report")
    assert result.returncode == 1
    assert result.stdout.startswith("failed\n")


def test_keys_signatures_and_installation_need_nothing_more(device, tmp_path):
    assert device("edgeproof", "key", "new", "--out", tmp_path / "keys").returncode == 0
    result = device("edgeproof", "inspect", BUNDLE, "--trust", tmp_path / "keys/public.pem")
    assert (result.returncode, result.stdout) == (3, "")
    assert "is not signed" in result.stderr
    result = device("edgeproof", "install", BUNDLE, "--to", tmp_path / "place")
    assert result.returncode == 0, result.stderr
    assert device("edgeproof", "inspect", tmp_path / "place/current").returncode == 0


@pytest.mark.parametrize("command", ["teach", "distill", "evaluate", "export"])
def test_a_command_whose_extra_is_missing_names_it(device, command):
    result = device("edgeproof", command, "anything")
    assert result.returncode == 4
    assert "pip install '.[train]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_is_no_bundle_yet_needs_an_extra_that_is_named(device, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    for words in (("pack", tmp_path / "model.onnx"), ("verify", tmp_path / "model.onnx", "--data", "set.npz")):
        result = device("edgeproof", *words)
        assert result.returncode == 4
        assert "pip install '.[onnx]'" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_data_set_whose_extra_is_missing_names_it(device, tmp_path):
    result = device("edgeproof", "verify", BUNDLE, "--data", "fashion-mini", "--out", tmp_path / "report")
    assert result.returncode == 4
    assert "pip install '.[train]'" in result.stderr
