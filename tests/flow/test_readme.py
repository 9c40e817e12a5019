"""The commands of README and tutorial, as written, in a copy of the tracked files with an environment of its own."""

import json
import os
import re
import shutil
import subprocess

import pytest

from tests.paths import ROOT


def commands(page):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


COMMANDS = commands("README.md")
TUTORIAL = commands("docs/tutorial.md")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    place = tmp_path_factory.mktemp("clone")
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name)
    return place


def test_the_readme_names_the_main_job_first_and_the_tests():
    assert COMMANDS[0] == "make distill export verify"
    assert "make test" in COMMANDS


def test_the_readme_stays_a_front_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_tutorial_goes_the_same_way_step_by_step():
    assert TUTORIAL[:2] == ["make distill", "make export"]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("command", COMMANDS + TUTORIAL)
def test_the_command_runs_as_written(clone, command):
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("PYTEST", "PYTHON", "VENV", "VIRTUAL_ENV", "OMP", "MAKE", "MFLAGS"))
    }
    if command == "make test":
        # Its tests run beside this one already; that they are found in an environment of their own is seen so.
        environment["PYTEST_ADDOPTS"] = "--collect-only --quiet"
    result = subprocess.run(
        command, shell=True, cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


@pytest.mark.slow
def test_the_main_job_left_its_report(clone):
    report = (clone / "reports/fashion-mini/report.html").read_text()
    assert "worst case" in report


@pytest.mark.slow
def test_the_main_job_shows_int8_beside_fp32_and_ships_fp32(clone):
    manifest = json.loads((clone / "bundles/fashion-mini/manifest.json").read_text())
    assert (set(manifest["graphs"]), manifest["ships"]) == ({"fp32", "int8"}, "fp32")
    assert json.loads((clone / "reports/fashion-mini/report.json").read_text())["artifact"]["precision"] == "fp32"
    beside = clone / "reports/fashion-mini-int8"
    judged = [json.loads(report.read_text()) for report in sorted(beside.glob("*/report.json"))]
    assert [report["artifact"]["precision"] for report in judged] == ["fp32", "int8"]
    assert (beside / "comparison.html").is_file()
