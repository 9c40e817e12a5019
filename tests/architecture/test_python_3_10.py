"""The device's Python is 3.10: what it runs must parse there."""

import ast

import pytest

from tests.paths import ROOT

FILES = sorted(
    path.relative_to(ROOT).as_posix() for package in ("runtime", "export") for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("file", FILES)
def test_the_file_is_python_3_10(file):
    ast.parse((ROOT / file).read_text(), feature_version=(3, 10))
