"""What errors say in one line."""

import pytest

from runtime.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one thing"), "one thing"),
        (ValueError("\n  one thing\nand a page of advice"), "one thing"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("  \n"), "RuntimeError"),
    ],
)
def test_first_line_of_an_error_is_what_it_says_or_what_it_is(error, line):
    assert first_line(error) == line
