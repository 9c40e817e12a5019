"""Tables on a terminal are made in one place, in which no text is read as markup."""

from tests.paths import ROOT


def test_no_other_module_fills_a_table_of_rich():
    makers = {
        str(path.relative_to(ROOT))
        for package in ("runtime", "export", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        if "rich.table" in path.read_text()
    }
    assert makers == {"runtime/tables.py"}
