"""`verify` as a command: its options, what it prints, what it leaves, and how it ends."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.bundle.manifest import EVALUATION
from runtime.errors import BadData
from runtime.records.report import load_report
from runtime.report import formats
from runtime.report.console import print_summary
from runtime.report.formats import ALL
from runtime.report.phrases import checks_line, verdict_of
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import EPS, npz

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_a_run_leaves_its_files_and_nothing_else(finished_once):
    folder, _ = finished_once
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "run"]
    names = sorted(path.name for path in (folder / "run").iterdir())
    assert names == [
        "evidence.npz", "gallery.npz", "journal.jsonl", "junit.xml", "report.html", "report.json", "run.json",
        "summary.md",
    ]  # fmt: skip


def test_json_on_stdout_is_the_report_and_progress_is_on_stderr(finished):
    out, result = finished
    assert result.stdout.encode() == (out / "report.json").read_bytes()
    assert "pgd: " in result.stderr


def test_the_report_holds_every_field_of_its_schema(finished):
    record = json.loads(finished[1].stdout)
    assert record["schema"] == "edgeproof.report/1"
    assert set(record) == {
        "schema", "verdict", "reasons", "gate", "artifact", "data", "threat_model", "request", "request_sha256", "seed",
        "clean", "attacks", "robust_accuracy", "per_class", "confusion", "eps_curve", "paired", "agreement", "warnings",
        "checks", "lattice", "sequential", "parent_agreement", "device", "software", "started", "seconds", "fusion",
        "gradient_test", "square_alone", "blind_control",
    }  # fmt: skip
    assert (record["verdict"], record["reasons"]) == ("measured", ["no gate: nothing to pass or fail"])
    assert [row["name"] for row in record["attacks"]] == ["fgsm", "pgd", "cw"]
    assert record["warnings"] == []
    states = {check["check"]: check["state"] for check in record["checks"]}
    assert states == {
        "randomised": "quiet", "softmax": "quiet", "zero-gradient": "quiet", "far-from-chance": "quiet",
        "fgsm-over-pgd": "quiet", "pgd-over-aa": "not run", "square-alone": "not run", "blind-control": "not run",
        "black-box-only": "quiet", "agreement": "quiet", "no-parent": "quiet", "fusion": "quiet",
        "gradient-holds": "quiet", "gradient-steady": "quiet", "margin-jumps": "quiet",
        "claimed-threat": "not run", "one-step": "not run", "enough-images": "not run",
        "clean-above-chance": "quiet", "repeated-images": "quiet",
    }  # fmt: skip
    assert record["artifact"]["authenticated"] is False
    assert record["threat_model"] == {"norm": "linf", "eps": EPS}
    assert record["data"]["n"] == record["clean"]["n"] == 60
    assert set(record["software"]) == {"edgeproof", "numpy", "onnxruntime"}


def test_the_summary_prints_verdict_reason_figures_and_place(bundle):
    out = edgeproof("verify", bundle, "--out", "run", "--attacks", "clean,pgd", "--n", 20, "--eps", "2/255").stdout
    read = load_report(Path("run"))
    assert out.startswith("measured\n  no gate: nothing to pass or fail")
    assert f"{100 * read.attacks[0].accuracy:.1f} %" in out
    assert "95 % interval" in out
    assert "20 images, eps 2/255" in out
    assert out.rstrip().endswith("report: run")
    assert "13 checks found nothing; not run: enough-images, fgsm-over-pgd, pgd-over-aa, square-alone" in out


def test_where_nothing_was_required_console_and_page_say_so_without_the_colour_of_success(finished, bundle, capsys):
    figure = f"robust accuracy {100 * load_report(finished[0]).robust_accuracy.value:.1f} %"
    page = (finished[0] / "report.html").read_text()
    assert figure.removeprefix("robust accuracy ") in page
    assert 'class="verdict" style="--tone: var(--measured)"' in page
    edgeproof("verify", bundle, "--fail-under", "1%", "--out", "gated")
    gated = Path("gated/report.html").read_text()
    assert "no gate" not in gated
    assert 'class="verdict" style="--tone: var(--passed)"' in gated
    for out, verdict, words in ((finished[0], "measured", True), (Path("gated"), "passed", False)):
        read = load_report(out)
        assert verdict_of(read) == verdict
        print_summary(read, out)
        assert (figure in capsys.readouterr().out) is words


def test_what_leaves_no_verdict_is_said_once_with_what_to_do(bundle):
    result = edgeproof("verify", bundle, "--out", "run", "--attacks", "fgsm", "--fail-under", "1%")
    (finding, *_) = load_report(Path("run")).warnings
    assert result.exit_code == 5
    assert result.stdout.count(finding.message) == 1
    assert f"  {finding.message}\n    hint: {finding.hint}\n" in result.stdout


def test_one_quiet_check_is_said_in_the_singular(finished):
    read = load_report(finished[0])
    quiet = [each for each in read.checks if each.state == "quiet"]
    assert checks_line(read.model_copy(update={"checks": tuple(quiet[:1])})) == "1 check found nothing"
    assert checks_line(read.model_copy(update={"checks": tuple(quiet[:2])})) == "2 checks found nothing"


def test_without_out_a_fresh_directory_is_made(bundle, tmp_path):
    assert edgeproof("verify", bundle, "--attacks", "clean").exit_code == 0
    (made,) = (tmp_path / "reports").iterdir()
    assert made.name.startswith("tiny-fp32-2")


def test_an_empty_folder_that_one_stands_in_is_a_run_directory_like_any_other(bundle, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert edgeproof("verify", bundle, "--attacks", "clean", "--out", ".").exit_code == 0
    assert (tmp_path / "here" / "report.json").is_file()


def test_without_the_report_extra_the_page_is_left_out_and_said_so(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    result = edgeproof("verify", bundle, "--out", "run", "--attacks", "clean")
    assert result.exit_code == 0
    assert "no report.html: jinja2 is not installed" in result.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_failure_while_writing_leaves_no_report_and_loses_no_work(bundle, tmp_path, monkeypatch):
    def fail(account):
        raise BadData("the disk is full")

    with monkeypatch.context() as patch:
        patch.setitem(ALL, "html", replace(ALL["html"], render=fail))
        assert edgeproof("verify", bundle, "--out", "run").exit_code == 3
    assert not (tmp_path / "run" / "report.json").exists()
    result = edgeproof("verify", bundle, "--out", "run", "--resume")
    assert result.exit_code == 0
    assert "pgd: 50 images from before" in result.stderr


def test_an_interrupt_ends_with_130_keeps_what_is_done_and_says_how_to_go_on(tmp_path, task, files):
    labels = np.tile(task[3], 400)
    images = np.tile(np.round(task[2] * 255).astype(np.uint8), (400, 1, 1, 1))
    large = {**files, EVALUATION: npz(images=images, labels=labels, ids=np.arange(len(labels)))}
    bundle = write_bundle(tmp_path / "large", large, n=len(labels))
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "verify", str(bundle)]
    with subprocess.Popen(
        [*command, "--out", "run", "--batch", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits it as ignored
    ) as process:
        try:
            first = next(line for line in process.stderr if line.startswith("clean: "))
            time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert first
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "interrupted"
    assert "Traceback" not in rest
    assert out == ""
    assert f"to resume: edgeproof verify {bundle} --batch 1 --out run --resume" in rest
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "journal.jsonl", "units"}
