"""A run is repeated by the command that it records, to the bit, whatever the batch."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from runtime.records.report import load_report
from runtime.records.request import RunRecord
from tests.command_line import edgeproof

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_the_run_record_holds_the_request_and_its_digest(finished):
    record = RunRecord.model_validate_json((finished[0] / "run.json").read_bytes())
    assert record.request.digest() == record.request_sha256 == load_report(finished[0]).request_sha256
    assert record.request.attacks[1].settings == {"steps": 10, "step": 0.25}


def test_a_run_is_repeated_to_the_bit(bundle, tmp_path, finished):
    assert edgeproof("verify", bundle, "--out", "again", "--save-adversarial").exit_code == 0
    assert (tmp_path / "again" / "evidence.npz").read_bytes() == (finished[0] / "evidence.npz").read_bytes()
    assert (tmp_path / "again" / "run.json").read_bytes() == (finished[0] / "run.json").read_bytes()


@pytest.mark.parametrize("batch", [1, 7])
def test_the_evidence_does_not_depend_on_the_batch(bundle, tmp_path, evidence, batch):
    assert edgeproof("verify", bundle, "--out", "other", "--batch", batch).exit_code == 0
    with np.load(tmp_path / "other" / "evidence.npz") as other:
        assert set(other) == set(evidence) - {"adversarial"}
        for name in other:
            assert other[name].tobytes() == evidence[name].tobytes(), name


def test_the_command_in_the_report_repeats_the_run(bundle, task):
    *_, images, labels = task
    np.savez("my own set.npz", x=images[:12].transpose(0, 2, 3, 1), y=labels[:12])
    options = ["--data", "my own set.npz", "--layout", "nhwc", "--data-root", "my data", "--save-adversarial"]
    gate = ["--attacks", "fgsm", "--n", 9, "--seed", 3, "--fail-under", "99.9%"]
    first = edgeproof("verify", bundle, *options, *gate, "--out", "first")
    command = shlex.split(load_report(Path("first")).request.command)
    assert command[:3] == ["edgeproof", "verify", "BUNDLE"]
    again = edgeproof("verify", bundle, *command[3:], "--out", "again")
    assert again.exit_code == first.exit_code == 1
    assert Path("again/run.json").read_bytes() == Path("first/run.json").read_bytes()
    assert Path("again/evidence.npz").read_bytes() == Path("first/evidence.npz").read_bytes()


def test_the_command_in_the_report_says_nothing_that_is_the_default(finished):
    command = load_report(finished[0]).request.command
    assert "--save-adversarial" in command
    for option in ("--data", "--layout", "--against", "--fail-under"):
        assert option not in command
