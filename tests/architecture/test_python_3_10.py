"""The device's Python is 3.10: what it runs must parse there, and define no class that it cannot."""

import ast

import pytest

from tests.paths import ROOT

FILES = sorted(
    path.relative_to(ROOT).as_posix() for package in ("runtime", "export") for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("file", FILES)
def test_the_file_is_python_3_10(file):
    ast.parse((ROOT / file).read_text(), feature_version=(3, 10))


@pytest.mark.parametrize("file", FILES)
def test_a_named_tuple_has_no_other_base_which_python_3_10_refuses(file):
    classes = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in classes}
    assert not [name for name, of in bases.items() if "NamedTuple" in of and len(of) > 1]


@pytest.mark.parametrize("file", FILES)
def test_a_class_variable_says_its_type_which_pydantic_asks_for_there(file):
    annotations = [
        ast.unparse(node.annotation)
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.AnnAssign)
    ]
    assert "ClassVar" not in annotations
