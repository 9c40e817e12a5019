"""The GitHub Action, step by step as the runner runs it; and the hook of pre-commit."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from runtime.records.report import load_report
from runtime.report import job_annotations
from runtime.report.account import Account
from runtime.spec import Gate
from tests.paths import ROOT
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import bundle_files, linear_task

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]
BASH = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]
"""How the runner starts `shell: bash`."""
EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")


def filled(text, known):
    """Return a text with the expressions that the runner fills in; one that it would not know fails."""
    return EXPRESSION.sub(lambda match: known[match[1]], text)


class Job:
    """A job in a directory: the files that the runner gives a step, and what steps left in them."""

    def __init__(self, place, **inputs):
        self.place = place
        (place / "temp").mkdir()
        self.summary, self.printed, self.artifacts = place / "summary.md", "", []
        self.known = {f"inputs.{name}": str(each.get("default", "")) for name, each in ACTION["inputs"].items()}
        self.known |= {f"inputs.{name.replace('_', '-')}": value for name, value in inputs.items()}
        self.known["github.action_path"] = str(ROOT)

    def run(self):
        """Run the steps in order; return the exit code of the first that fails, else 0."""
        for number, step in enumerate(STEPS):
            if "uses" in step:
                if self.known["inputs.artifact"]:
                    self.artifacts.append(self.place / filled(step["with"]["path"], self.known))
                continue
            code = self._run(step, self.place / f"output-{number}")
            if code:
                return code
        return 0

    def _run(self, step, output):
        script = self.place / "temp" / "script.sh"
        script.write_text(step["run"])
        output.touch()
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_PATH": str(self.place / "path"),
            "RUNNER_TEMP": str(self.place / "temp"),
            **{name: filled(text, self.known) for name, text in step.get("env", {}).items()},
        }
        command = [*BASH, str(script)]
        result = subprocess.run(
            command, cwd=self.place, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        self.printed += result.stdout
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.known[f"steps.{step['id']}.outputs.{name}"] = value
        return result.returncode


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Run the action on the tiny bundle, which reaches its gate."""
    place = tmp_path_factory.mktemp("job")
    write_bundle(place / "my bundle", bundle_files(linear_task()), n=60, gate=Gate(fail_under=0.01))
    job = Job(place, model="my bundle", attacks="fgsm,pgd,cw")
    return SimpleNamespace(job=job, code=job.run())


def test_a_model_that_reaches_its_gate_passes_with_summary_annotation_and_artifact(job):
    assert job.code == 0, job.job.printed
    report = load_report(job.job.place / "edgeproof-report")
    assert "### ✅ Passed: tiny, fp32" in job.job.summary.read_text()
    notices = re.findall(r"^::notice title=edgeproof%3A passed%2C tiny fp32::.*", job.job.printed, re.MULTILINE)
    assert len(notices) == 1
    (artifact,) = job.job.artifacts
    assert (artifact / "report.html").is_file()
    outputs = {name: filled(each["value"], job.job.known) for name, each in ACTION["outputs"].items()}
    assert outputs == {"verdict": report.verdict, "exit-code": "0"} == {"verdict": "passed", "exit-code": "0"}


def test_what_is_printed_while_it_judges_is_no_command_of_the_runner(job):
    stopped = re.search(r"^::stop-commands::([0-9a-f]{32})$(.*?)^::\1::$", job.job.printed, re.MULTILINE | re.DOTALL)
    assert "worst case" in stopped[2]


def test_a_model_that_does_not_reach_its_gate_fails_after_all_was_shown(tmp_path):
    write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    job = Job(tmp_path, model="bundle", attacks="fgsm", fail_under="99%", eps="0.2")
    assert job.run() == 1
    assert "❌ Failed" in job.summary.read_text()
    assert "::error title=edgeproof%3A failed%2C tiny fp32::robust accuracy is under 99.0 %25" in job.printed
    assert job.artifacts


def test_an_input_is_a_word_and_no_shell(tmp_path):
    job = Job(tmp_path, model="--help", data="$(touch pwned)", eps="'; touch pwned; '")
    assert job.run() == 2
    assert "::error title=edgeproof::no verdict: edgeproof verify ended with exit code 2" in job.printed
    assert not (tmp_path / "pwned").exists()


def test_a_report_that_lay_there_before_is_no_verdict_of_this_job(job, tmp_path):
    """Whoever opens a pull request may put one there."""
    shutil.copytree(job.job.place / "edgeproof-report", tmp_path / "edgeproof-report")
    another = Job(tmp_path, model="no model")
    assert another.run() == 2
    assert not another.known.get("steps.show.outputs.verdict")
    assert not another.summary.exists()


def test_no_script_holds_an_expression_and_every_action_is_pinned_by_a_commit():
    assert not [step["name"] for step in STEPS if "${{" in step.get("run", "")]
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert [bool(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", name)) for name in used] == [True]
    assert all(step.get("shell") == "bash" for step in STEPS if "run" in step)


def test_a_text_from_outside_ends_no_command(job):
    report = load_report(job.job.place / "edgeproof-report")
    hostile = report.model_copy(update={"reasons": ("100%\n::error::x",), "warnings": (FINDING,)})
    lines = job_annotations.render(Account(hostile)).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("::notice title=edgeproof%3A passed%2C tiny fp32::100%25 ::error::x")
    assert lines[1].startswith("::error title=edgeproof%3A a%2Cb::")


FINDING = {"check": "a,b", "blocking": True, "message": "m", "hint": "h"}


@pytest.fixture
def repository(tmp_path):
    """A repository of git with a bundle, and a manifest.json of something else."""
    write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    (tmp_path / "page").mkdir()
    (tmp_path / "page/manifest.json").write_text('{"name": "an app"}')
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def hook(repository):
    (asked,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (asked["language"], asked["pass_filenames"], asked["always_run"]) == ("python", False, True)
    words = shlex.split(asked["entry"])
    command = [sys.executable if words[0] == "python" else shutil.which(words[0]), *words[1:]]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=300)


def test_the_hook_lets_whole_bundles_through(repository):
    result = hook(repository)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("what", ["edited", "removed", "manifest edited", "manifest removed"])
def test_the_hook_stops_a_bundle_that_is_not_whole(repository, what):
    path = repository / "bundle" / ("manifest.json" if what.startswith("manifest") else "model.fp32.onnx")
    if what.endswith("removed"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])
    result = hook(repository)
    assert result.returncode == 1, result.stderr
    assert "bundle" in result.stderr
