"""docs/reference/gradient.md lists the operations that have a derivative, each in its table."""

import re

import pytest

from export.rules import RULES, RULES_OF_MANY
from export.standard import OF_MICROSOFT, OF_ONNX
from export.standard.blocked import OF_BLOCKS
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "gradient.md").read_text()


@pytest.mark.parametrize(
    ("heading", "operations"),
    [
        ("With a rule", [*RULES, *RULES_OF_MANY]),
        ("Written out", [*OF_ONNX]),
        ("Written out, of the domain `com.microsoft`", [*OF_MICROSOFT]),
        ("Written out, of the domain `com.microsoft.nchwc`", [*OF_BLOCKS]),
    ],
)
def test_the_page_lists_every_operation_with_a_derivative(heading: str, operations: list[str]) -> None:
    listed = re.search(rf"\*\*{re.escape(heading)}\*\*[^:]*:\n(.*?)\.\n", PAGE, re.DOTALL)
    assert listed is not None
    assert listed[1].replace("\n", " ").split(", ") == sorted(operations)
