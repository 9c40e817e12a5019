"""Checks a release: whether the version may be released, and whether the wheel works outside of the checkout.

    python -m tools.release standing           # compares the version with the changelog
    python -m tools.release try dist/*.whl     # runs the tutorial's commands with the wheel in its own environment

`make dist` runs both. The changelog of an unreleased version begins with `## Unreleased`, that of a release with
`## VERSION (YYYY-MM-DD)`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
UNRELEASED = "Unreleased"
HEADING = re.compile(r"^## (?:(?P<version>\S+) \(\d{4}-\d{2}-\d{2}\)|Unreleased)$")
FOREIGN = ("PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS")
"""How the names of environment variables begin that would carry over into the other environment."""


def standing(version: str, changelog: str) -> str:
    """Return in words whether a version is released.

    Raises:
        SystemExit: the changelog begins with another version, or this version was released and there are changes since.

    """
    headings = [line for line in changelog.splitlines() if line.startswith("## ")]
    found = [HEADING.match(line) for line in headings]
    if strange := [line for line, match in zip(headings, found, strict=True) if match is None]:
        raise SystemExit(f"CHANGELOG.md: {strange[0]!r} is neither '## {UNRELEASED}' nor '## VERSION (YYYY-MM-DD)'")
    versions = [match["version"] for match in found if match]
    if versions[:1] == [version]:
        return f"{version} is a release"
    if versions[:1] != [None]:
        raise SystemExit(
            f"CHANGELOG.md begins with {versions[0] if versions else 'no version'}, the project is {version}"
        )
    if version in versions:
        raise SystemExit(f"{version} was released, and CHANGELOG.md has changes since: raise it in pyproject.toml")
    return f"{version} is not released: upload nothing of this"


def tutorial(page: str) -> list[str]:
    """Return the command blocks of the tutorial; each `make` line is replaced by the command that it runs."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return ["\n".join(map(_without_make, block.splitlines())) for block in blocks]


def _without_make(command: str) -> str:
    if not command.startswith("make "):
        return command
    dry = ["make", "--always-make", "--dry-run", *command.split()[1:], "VENV=.venv"]
    told = subprocess.run(dry, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [line.rstrip() for line in told.splitlines() if line.startswith(".venv/bin/edgeproof ")][-1]


def run_tutorial(wheel: Path, place: Path) -> None:
    """Install a wheel into a new environment in `place`, and run the tutorial there until a command fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}

    def run(script: str) -> None:
        print(f"$ {script}", flush=True)
        subprocess.run(["sh", "-euc", script], cwd=place, env=clean, check=True)

    run(f"{sys.executable} -m venv .venv")
    run(f".venv/bin/python -m pip install --quiet '{wheel.resolve()}[train]'")
    run("""test "$(.venv/bin/python -c 'import edgeproof; print(edgeproof.HOME)' | grep -c "^$PWD/.venv/")" = 1""")
    for block in tutorial((ROOT / "docs" / "tutorial.md").read_text()):
        run(block)


def main(words: list[str]) -> None:
    """Run the subcommand of the command line."""
    match words:
        case ["standing"]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            print(standing(project["version"], (ROOT / "CHANGELOG.md").read_text()))
        case ["try", wheel]:
            with tempfile.TemporaryDirectory(prefix="edgeproof-release-") as place:
                run_tutorial(Path(wheel), Path(place))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
