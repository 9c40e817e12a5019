"""The walkthroughs of CONTRIBUTING.md, as written: their commands and rows, in a copy of the code."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
WALKS = dict(re.findall(r"^### (A new .*?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
BLOCK = re.compile(r"^```(sh|text title=\"(.*?)\")\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEW = "  # new"


def enter(file, block):
    """Put the lines that are marked as new into a file, each below the line that the block has above it."""
    lines, above = file.read_text().splitlines(), None
    for line in block.splitlines():
        if line.endswith(NEW):
            above += 1
            lines.insert(above, line.removesuffix(NEW))
        else:
            assert lines.count(line) == 1, f"{file} has {lines.count(line)} times: {line}"
            above = lines.index(line)
    file.write_text("\n".join(lines) + "\n")


def test_there_is_a_walkthrough_of_an_attack_a_rule_and_a_method():
    assert list(WALKS) == ["A new attack", "A new operation in the gradient graph", "A new training method"]


@pytest.mark.slow
@pytest.mark.check
@pytest.mark.parametrize("title", WALKS)
def test_the_walkthrough_leads_to_tests_that_pass(title, tmp_path):
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))}
    last = ""
    for language, file, block in BLOCK.findall(WALKS[title]):
        if language == "sh":
            done = subprocess.run(
                ["sh", "-euc", block], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
            )
            last = done.stdout + done.stderr
            assert done.returncode == 0, last
        else:
            enter(tmp_path / file, block)
    assert re.search(r"[1-9]\d* passed", last)
