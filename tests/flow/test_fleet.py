"""The workflow that docs/fleet.md shows: it is YAML, its jobs follow one another, and its commands are ours."""

import re
import shlex
from importlib.metadata import entry_points

import pytest
import yaml

from runtime.cli import COMMANDS_GROUP
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "fleet.md").read_text()
WORKFLOW = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
COMMANDS = [
    line for step in STEPS for line in step.get("run", "").splitlines() if line.lstrip().startswith("edgeproof ")
]


def test_no_job_comes_before_what_it_needs_and_the_rollout_needs_the_verdict():
    jobs, seen = WORKFLOW["jobs"], []
    for name, job in jobs.items():
        assert job.get("needs") in (None, *seen)
        assert job["runs-on"]
        seen.append(name)
    assert jobs["rollout"]["needs"] == "verdict"
    assert "edgeproof merge" in "".join(step.get("run", "") for step in jobs["verdict"]["steps"])


def test_every_step_either_runs_or_uses_something():
    assert all(("run" in step) != ("uses" in step) for step in STEPS)


def test_what_a_job_takes_another_has_left():
    left = {step["with"]["name"] for step in STEPS if "upload-artifact" in step.get("uses", "")}
    taken = {
        step["with"].get("name") or step["with"]["pattern"]
        for step in STEPS
        if "download-artifact" in step.get("uses", "")
    }
    assert taken == {"bundle", "shard-*"}
    assert {"bundle", "shard-${{ matrix.shard }}"} <= left


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_is_one_of_ours(line):
    name, *words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "1", line))[1:]
    (entry,) = [entry for entry in entry_points(group=COMMANDS_GROUP) if entry.name == name]
    known = {option for parameter in entry.load().params for option in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_the_workflow_has_commands():
    assert {shlex.split(line)[1] for line in COMMANDS} == {
        "distill", "export", "verify", "bench", "merge", "install",
    }  # fmt: skip


def test_the_run_that_is_exported_is_made_by_a_step_before():
    lines = [shlex.split(line) for line in COMMANDS]
    number, run = next((number, line[2]) for number, line in enumerate(lines) if line[1] == "export")
    made = [line[line.index("--out") + 1] for line in lines[:number] if line[1] == "distill"]
    assert made == [run]
