"""`edgeproof targets` asks every row of the table of backends, and says what keeps one from judging."""

import json

import onnx
import pytest
from onnx import parser

from runtime.backends.survey import GRAPH, runners
from runtime.backends.table import BACKENDS
from tests.command_line import edgeproof
from tests.judges import JUDGE, OnlyJudges, Shifted

MEANS = """
<ir_version: 8, opset_import: ["" : 18]>
means (float[B, 3, 8, 8] input) => (float[B, 3] logits) {
  pooled = GlobalAveragePool(input)
  logits = Flatten(pooled)
}
"""


def lines():
    result = edgeproof("targets")
    assert result.exit_code == 0, result.stderr
    return {line.split()[0]: line for line in result.stdout.splitlines()}


def test_the_graph_that_is_asked_is_the_mean_of_each_channel():
    assert onnx.load_from_string(GRAPH) == parser.parse_model(MEANS)


def test_every_runner_of_the_table_has_a_line_and_the_cpu_judges():
    found = lines()
    assert list(found) == [str(runner) for runner in runners()]
    assert "judges on cpu (onnxruntime " in found["ort:cpu"]


def test_what_is_missing_is_said_with_what_to_do(monkeypatch):
    found = json.loads(edgeproof("targets", "--json").stdout)
    (cuda,) = (each for each in found if (each["backend"], each["provider"]) == ("ort", "cuda"))
    assert cuda["device"] is None
    assert "CUDAExecutionProvider" in cuda["missing"]
    assert "onnxruntime-gpu" in cuda["hint"]


@pytest.mark.parametrize(
    ("judge", "said"), [(OnlyJudges, "judges on chip"), (Shifted, "missing: its answer to a mean")]
)
def test_a_new_row_appears_by_itself_and_must_answer_right(judge, said, monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, judge.backend())
    assert said in lines()[str(JUDGE)]
