"""The script for a machine with a GPU: its budget, its parts, its file. What the parts compute, a slow test tries."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from benchmarks.gpu import __main__ as script
from benchmarks.gpu import arithmetic, autoattack
from benchmarks.gpu.attacks import affordable, beside, stopped, worst
from benchmarks.gpu.machine import commit
from benchmarks.gpu.record import GpuRecord, PartRecord
from benchmarks.gpu.schedule import Part, allotted, run_part, run_parts
from benchmarks.gpu.subject import TINY, bundle, half_stand, images_of, network
from benchmarks.gpu.tests import counted, ended
from pipeline.runs.evaluate import holdout_accuracy
from runtime.images.image_set import ImageSet
from runtime.spec import to_json
from tests.paths import ROOT

CPU = torch.device("cpu")


def python(code, share=1.0, name="part"):
    """Return a part that runs code, which finds its seconds and the place of its figures in sys.argv."""
    return Part(name, share, lambda seconds, out: [sys.executable, "-c", code, str(seconds), str(out)])


NOTE = "import sys; open(sys.argv[2], 'w').write('{\"seconds\": ' + sys.argv[1] + '}')"


def test_a_part_gets_its_share_of_what_is_left_and_leaves_the_rest_to_those_after_it():
    assert allotted(100, [3, 1, 1]) == 60
    assert allotted(90, [1, 1]) == 45
    assert allotted(50, [2]) == 50
    assert allotted(-1, [2, 1]) == 0


def test_parts_run_in_their_order_and_one_that_fails_does_not_stop_the_next():
    codes = {"first": 0, "second": 1, "third": 4, "fourth": 0}
    parts = [python(f"{NOTE}; sys.exit({code})", name=name) for name, code in codes.items()]
    records = run_parts(parts, 100, lambda records: None, least=0)
    assert [record.name for record in records] == list(codes)
    assert [record.state for record in records] == ["done", "failed", "not there", "done"]
    assert [record.exit_code for record in records] == [0, 1, 4, 0]
    assert all(record.figures["seconds"] == pytest.approx(0.9 * record.limit, rel=1e-3) for record in records)


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started_and_keeps_its_figures(tmp_path):
    still = tmp_path / "still"
    child = f"import time; time.sleep(4); open({str(still)!r}, 'w')"
    start = f"import subprocess, time; subprocess.Popen([sys.executable, '-c', {child!r}])"
    code = f"{NOTE}; {start}; print('begun', flush=True); time.sleep(60)"
    began = time.monotonic()
    late = run_part(python(code), 2)
    assert (late.state, late.exit_code, late.tail) == ("timed out", None, ("begun",))
    assert late.figures == {"seconds": 1.8}
    assert time.monotonic() - began < 30
    time.sleep(4)
    assert not still.exists()


def test_a_figure_that_is_no_number_becomes_a_word_that_json_can_hold():
    code = "import sys; open(sys.argv[2], 'w').write('{\"loss\": NaN, \"all\": [Infinity, 1.5]}')"
    found = run_part(python(code), 30)
    assert found.figures == {"loss": "NaN", "all": ["Infinity", 1.5]}
    assert to_json(found)


def test_a_part_that_a_signal_ends_has_failed():
    killed = run_part(python("import os; os.kill(os.getpid(), 9)"), 30)
    assert (killed.state, killed.exit_code) == ("failed", -9)


def test_what_there_is_no_time_for_is_skipped_and_said():
    now = iter([0.0, 0.0, 50.0, 95.0])
    parts = [python(NOTE, name=name) for name in ("first", "second", "third")]
    records = run_parts(parts, 100, lambda records: None, least=20, clock=lambda: next(now))
    assert [record.state for record in records] == ["done", "done", "skipped"]
    assert [record.limit for record in records] == [pytest.approx(100 / 3, abs=0.01), 25, 5]
    assert records[2].reason


def test_everything_known_is_told_before_and_after_every_part():
    seen = []
    run_parts([python(NOTE, name="first"), python(NOTE, name="second")], 100, seen.append, least=0)
    states = [tuple(record.state for record in told) for told in seen]
    assert states[:4] == [("running", "waiting"), ("done", "waiting"), ("done", "running"), ("done", "done")]
    assert seen[2][0].figures


def test_the_file_is_read_back_as_it_was_written_and_knows_no_other_key(tmp_path):
    asked = script.options().parse_args(["--seconds", "9", "--out", str(tmp_path / "gpu.json"), "--device", "cpu"])
    script.writer(asked)((PartRecord(name="first", state="done", exit_code=0, figures={"of": [1, {"a": None}]}),))
    written = json.loads((tmp_path / "gpu.json").read_text())
    record = GpuRecord.model_validate(written)
    assert record.parts[0].figures == {"of": [1, {"a": None}]}
    assert written["schema"] == "edgeproof.gpu-benchmark/1"
    assert (record.card, record.budget, record.tiny) == ({}, 9, False)
    assert {"torch", "numpy", "onnxruntime"} <= record.software.keys()
    assert record.machine["cpu"]
    with pytest.raises(ValueError, match="another"):
        GpuRecord.model_validate(written | {"another": 1})


def test_the_commit_is_that_of_the_code():
    if not (ROOT / ".git").exists():
        pytest.skip("a copy without history")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert commit().removesuffix("-dirty") == head.stdout.strip()


def test_without_a_card_it_says_so_and_writes_nothing(tmp_path, capsys):
    assert script.main(["--seconds", "9", "--out", str(tmp_path / "gpu.json")]) == 4
    assert "--device cpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_parts_asked_for_run_in_the_order_of_their_worth():
    asked = script.options().parse_args(["--seconds", "9", "--out", "x", "--parts", "training", "gpu-tests", "--tiny"])
    parts = script.chosen(asked)
    assert [part.name for part in parts] == ["gpu-tests", "training"]
    command = parts[0].command(7.25, ROOT / "figures.json")
    assert command[1:5] == ["-m", "benchmarks.gpu.tests", "gpu", "--device"]
    assert command[-5:] == ["--tiny", "--seconds", "7.2", "--out", str(ROOT / "figures.json")]


def test_tests_are_counted_with_their_failures_and_reasons(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n\ndef test_holds(): pass\n\ndef test_fails(): assert 1 == 2\n\n"
        "def test_waits(): pytest.skip('no card')\n\n@pytest.fixture\ndef broken(): raise OSError('gone')\n\n"
        "def test_errs(broken): pass\n"
    )
    report = tmp_path / "junit.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "test_three.py"]
    subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, check=False)
    found = counted(report)
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 2, 1)
    assert found["skipped_because"] == {"no card": 1}
    assert "assert 1 == 2" in found["failures"]["test_three::test_fails"]
    assert "gone" in found["failures"]["test_three::test_errs"]


@pytest.mark.parametrize(("code", "ours"), [(0, 0), (1, 1), (3, 3)])
def test_the_part_ends_as_its_tests_do(code, ours):
    assert ended(code, {"passed": 3}) == ours


def test_tests_that_cannot_be_collected_have_failed_and_are_not_what_is_not_there():
    assert ended(pytest.ExitCode.USAGE_ERROR, {}) == 1


def test_no_test_at_all_is_a_failure_but_where_all_are_skipped():
    assert ended(pytest.ExitCode.NO_TESTS_COLLECTED, {"skipped": 2}) == 0
    assert ended(pytest.ExitCode.NO_TESTS_COLLECTED, {}) == 5


def test_a_run_that_crashes_fails_the_attacks_whichever_it_is():
    stood, fell, crashed = ({"exit_code": code} for code in (0, 5, 1))
    assert worst({"eps": 0.1, "fp32": stood, "autoattack": fell}) == 0
    assert worst({"eps": 0.1, "fp32": stood, "autoattack": crashed}) == 1
    assert worst({"fp32": fell, "fp16": {"error": "no such graph", "exit_code": 3}}) == 3


def test_a_provider_that_is_there_and_refuses_a_graph_has_failed_and_one_that_is_not_is_not_there():
    assert stopped("cpu") == 1
    assert stopped("nobodys") == 4


def test_ideal_is_what_the_passes_cost_by_themselves():
    rows = [
        {"seconds": 2.0, "forwards": 100, "gradients": 1000},
        {"seconds": 3.0, "forwards": 300, "gradients": 0},
    ]
    assert beside(rows, {"forward": 1.0, "gradient": 2.0}) == {
        "seconds": 5.0, "forwards": 400, "gradients": 1000, "ideal_seconds": 2.4, "of_ideal": 0.48,
    }  # fmt: skip
    assert beside(rows, {"forward": 1.0, "gradient": 2.0}, cascade=True)["ideal_seconds"] == 0.3


def test_autoattack_gets_as_many_images_as_there_is_time_for():
    cost = {"forward": 0.05, "gradient": 0.15}
    assert affordable(1e6, cost, 1000) == 1000
    assert 10 < affordable(60, cost, 1000) < 200
    assert affordable(0, cost, 1000) == 2


def test_the_network_answers_every_image_right_and_half_of_them_stand():
    made = network(TINY, CPU)
    images = images_of(made, TINY, 40, CPU)
    assert len(set(images.labels)) >= 5
    eps = half_stand(made, images, CPU)
    clean, stands = holdout_accuracy(made, images, classes=10, eps=eps, device=CPU)
    assert clean == 1
    assert 0.2 < stands < 0.8


def test_the_suite_ends_alike_wherever_its_arithmetic_runs_and_a_library_that_fails_takes_no_figure(
    tmp_path, monkeypatch
):
    made = network(TINY, CPU)
    images = images_of(made, TINY, 150, CPU)
    bundle(made, images, TINY, ("fp32",), half_stand(made, images, CPU), tmp_path / "bundle")
    there = arithmetic.libraries("cpu")
    monkeypatch.setattr(arithmetic, "libraries", lambda provider: {**there, "broken": (lambda array: 1 / 0, False)})
    found = arithmetic.beside_numpy(tmp_path / "bundle", "cpu", 128, 150)
    assert list(found) == ["n", "numpy side by side", "numpy", "torch", "broken"]
    assert {name: found[name]["same"] for name in there} == dict.fromkeys(there, 150)
    assert all(found[name]["seconds"] > 0 for name in there)
    assert found["broken"] == {"error": "ZeroDivisionError: division by zero"}


@pytest.mark.slow
def test_both_implementations_of_autoattack_leave_the_same_images():
    pytest.importorskip("torchattacks", reason="`make test` installs it, without its dependencies")
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, autoattack.CLASSES)).requires_grad_(False)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4)).astype(np.uint8)
    labels = made(torch.from_numpy(pixels / np.float32(255))).argmax(dim=1).numpy()
    images = ImageSet("noise", pixels, labels, np.arange(6))
    eps = half_stand(made, images, CPU)
    cost, stands = autoattack.ours(made, images, eps, CPU)
    assert 0 < stands.sum() < 6
    assert [row["name"] for row in cost["rows"]] == ["apgd-ce", "apgd-t", "fab-t", "square", "aa"]
    cost, stands_there = autoattack.theirs(autoattack.torchattacks, made, images, eps, CPU)
    assert list(stands_there) == list(stands)
    assert cost["forwards"] > 5000 * stands.sum()
    assert cost["gradients"] >= 1000 * stands.sum()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_whole_script_runs_on_a_cpu_and_leaves_every_part(tmp_path):
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--seconds", "1500", "--out", out]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    record = GpuRecord.model_validate_json(out.read_bytes())
    parts = {part.name: part for part in record.parts}
    assert list(parts) == [name for name, *_ in script.PARTS]
    assert result.returncode in (0, 1), result.stdout + result.stderr
    assert all(part.state != "failed" for part in record.parts), result.stdout
    assert parts["gpu-tests"].figures["skipped"] > 10
    assert {check["state"] for check in parts["gpu-check"].figures.values()} == {"not there"}
    attacks = parts["attacks"].figures
    assert [row["name"] for row in attacks["fp32"]["rows"]] == ["fgsm", "pgd", "cw"]
    assert attacks["fp32"]["ideal_seconds"] > 0
    assert attacks["two_cores"]["times_slower"] > 0
    if parts["attacks"].state == "done":
        assert {attacks["arithmetic"][name]["same"] for name in ("numpy", "torch")} == {12}
    assert set(parts["autoattack"].figures["pass_ms"]["16"]) >= {"forward", "gradient", "gradient_eager"}
    for part in ("attacks", "autoattack"):  # on a busy machine their last and longest step may be ended
        assert parts[part].state in ("done", "timed out"), parts[part].tail
    assert parts["pipeline-tests"].figures["passed"] > 3
    assert parts["pipeline-tests"].figures["failed"] == 0
