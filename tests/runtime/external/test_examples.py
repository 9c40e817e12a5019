"""The judges in examples/judges: what they answer, and the verdicts that they give."""

import shlex
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.errors import JudgeFault
from runtime.external.session import ExternalJudge
from runtime.session import GraphFacts
from tests.paths import ROOT
from tests.tiny import FORWARD, graph

JUDGES = ROOT / "examples" / "judges"
RANGES = ((1 / 255, -128), (0.06, 0))
"""Of an int8 model: bytes as they are, and logits from -7.7 to 7.6."""


def command(name, *files):
    return shlex.join([sys.executable, str(JUDGES / f"run_{name}.py"), *map(str, files)])


@pytest.fixture(params=["onnxruntime", "litert", "litert-int8", "ncnn"])
def judge_command(request, task, tmp_path):
    """The command of an example, on the linear task's model in its format."""
    return write(request.param, task, tmp_path)


def write(name, task, folder):
    weight, bias, *_ = task
    model = folder / name
    if name == "onnxruntime":
        model.write_bytes(graph(FORWARD, weight, bias))
        return command(name, model)
    pytest.importorskip(
        "ai_edge_litert" if name.startswith("litert") else "ncnn", reason="has no wheel for this Python"
    )
    from tests.runtime.external import models

    if name.startswith("litert"):
        model.write_bytes(models.tflite(weight, bias, RANGES if name.endswith("int8") else None))
        return command("litert", model)
    files = [model.with_suffix(suffix) for suffix in (".param", ".bin")]
    for file, data in zip(files, models.ncnn(weight, bias), strict=True):
        file.write_bytes(data)
    return command(name, *files)


def opened(judge_command):
    return ExternalJudge(
        judge_command, artifact="0" * 64, facts=GraphFacts(), precision="fp32", image=(1, 4, 4), classes=3
    )


def test_an_example_finds_the_module_beside_it_as_the_program_edgeproof_starts_it(task, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "flags", SimpleNamespace(safe_path=False))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as edgeproof/__main__.py does
    with opened(write("onnxruntime", task, tmp_path)) as judge:
        assert judge.card().backend == "command"


def test_an_example_says_what_starts_it_where_nobody_asks():
    ended = subprocess.run([*shlex.split(command("onnxruntime"))], stdin=subprocess.DEVNULL, capture_output=True)
    assert ended.returncode == 1
    assert ended.stderr == b"nobody asks: edgeproof verify --judge-command starts this program\n"


def test_an_example_answers_as_its_model_does(judge_command, task):
    weight, bias, images, _ = task
    due = images.reshape(len(images), -1) @ weight.T + bias
    with opened(judge_command) as judge:
        logits, facts = judge.logits(images), judge.card().facts
    assert facts.quantised is ("int8" in judge_command)
    assert np.abs(logits - due).max() < (0.2 if facts.quantised else 2e-3)  # ncnn may keep weights in float16
    assert logits.dtype == np.float32


def test_an_example_that_cannot_load_its_model_says_why(tmp_path):
    with pytest.raises(JudgeFault, match=r"exit code 1; its stderr ends: .*absent"):
        opened(command("onnxruntime", tmp_path / "absent.onnx"))
