"""What a release says of itself is the same wherever it says it; what holds developers at old packages stays out."""

import re
import sys

import pytest
import yaml

from tests.paths import ROOT

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")


def project():
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_names_the_version_and_licence_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project()["version"], project()["license"])
    assert {"message", "title", "authors", "type"} <= citation.keys()


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version():
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert first.split()[0] in ("Unreleased", project()["version"])


def test_no_extra_pins_a_package_to_one_version():
    extras = project()["optional-dependencies"]
    pinned = [each for wanted in extras.values() for each in wanted if re.search(r"==|~=", each.partition(";")[0])]
    assert pinned == []


def test_torchattacks_which_pins_requests_comes_without_its_dependencies():
    assert not [each for each in project()["optional-dependencies"]["dev"] if each.startswith("torchattacks")]
    (line,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "pip" in line and "torchattacks" in line
    ]
    assert "--no-deps" in line
