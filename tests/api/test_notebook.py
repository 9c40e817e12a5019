"""The quickstart notebook runs, and its page is what it printed."""

import re

import nbformat
import pytest

from tests.paths import ROOT
from tools.notebook import NOTEBOOK, as_page, executed


def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def printed(notebook):
    """Return what each cell of code printed."""
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_page_and_its_pictures_are_those_of_the_notebook():
    """Where this fails: python -m tools.notebook."""
    page, pictures = as_page(stored())
    assert NOTEBOOK.with_suffix(".md").read_text() == page
    assert pictures
    for name, picture in pictures.items():
        assert NOTEBOOK.with_name(name).read_bytes() == picture


def test_the_notebook_was_stored_after_a_run_from_its_first_cell_to_its_last():
    cells = [cell for cell in stored().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_the_notebook_imports_no_other_package_of_ours():
    code = "\n".join(cell.source for cell in stored().cells if cell.cell_type == "code")
    for name in ("runtime", "export", "pipeline"):
        assert f"import {name}" not in code
        assert f"from {name}" not in code


def test_readme_and_index_lead_to_the_notebook():
    for page in ("README.md", "docs/index.md"):
        assert "notebooks/quickstart.md" in (ROOT / page).read_text()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_notebook_runs_and_its_student_is_more_robust():
    text = "\n".join(printed(executed()))
    plain, rounded, shipped = (float(robust) for robust in re.findall(r"robust ([\d.]+) %", text))
    assert "passed: False" in text
    assert shipped > plain + 20
    assert rounded > plain
