"""CSV that a spreadsheet opens: a text from outside is no formula there, and a number is a number."""

import csv
import io

import pytest

from runtime.csv_table import csv_table


def read(text):
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@SUM(A1)", " =1"])
def test_a_text_that_a_spreadsheet_would_compute_is_no_formula(text):
    assert read(csv_table(("a", text), [(text, "x")])) == [["a", f"'{text}"], [f"'{text}", "x"]]


@pytest.mark.parametrize("sign", ["\t", "\r", "\n", "\v"])
def test_what_begins_a_cell_or_a_line_unseen_is_a_space(sign):
    """Python before 3.13 writes a carriage return without quotes: the next line would begin with the formula."""
    assert csv_table(("a",), [(f"{sign}=1", f"b{sign}=1")]) == "a\n' =1,b =1\n"


@pytest.mark.parametrize("text", ["", "a=b", "run-1", "1", "'=1", "fp32, int8", 'a "b"'])
def test_any_other_text_stays_as_it_is(text):
    assert read(csv_table(("a",), [(text, text)]))[1] == [text, text]


def test_numbers_stay_numbers_and_none_is_an_empty_cell():
    assert csv_table(("a", "b", "c"), [(-0.125, 3, None)]) == "a,b,c\n-0.125,3,\n"
