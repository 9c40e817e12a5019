"""What a release says of itself is the same wherever it says it; what holds developers at old packages stays out."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml

from tests.architecture.environments import run, wheel
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


def standing(version, *headings):
    from tools import release

    return release.standing(
        version, "# Changelog\n\n" + "".join(f"## {heading}\n\n- a change\n\n" for heading in headings)
    )


def test_version_and_changelog_of_this_project_fit():
    from tools import release

    assert release.standing(project()["version"], (ROOT / "CHANGELOG.md").read_text())


def test_a_release_heads_the_changelog_with_its_date_and_what_is_none_is_told():
    assert standing("0.2.0", "0.2.0 (2026-12-01)", "0.1.0 (2026-11-01)") == "0.2.0 is a release"
    assert "not released" in standing("0.2.0", "Unreleased", "0.1.0 (2026-11-01)")


@pytest.mark.parametrize(
    "headings",
    [
        ("0.1.0 (2026-11-01)",),
        ("0.3.0 (2026-12-01)", "0.2.0 (2026-11-01)"),
        ("Unreleased", "0.2.0 (2026-11-01)"),
        ("0.2.0",),
        ("unreleased",),
        (),
    ],
)
def test_another_version_in_the_changelog_or_changes_to_a_released_one_are_refused(headings):
    with pytest.raises(SystemExit, match=r"CHANGELOG|was released"):
        standing("0.2.0", *headings)


def test_the_tutorial_needs_no_make_where_a_wheel_is_installed():
    from tools import release

    blocks = release.tutorial((ROOT / "docs" / "tutorial.md").read_text())
    assert blocks[0] == ".venv/bin/edgeproof distill fashion-mini --out runs/fashion-mini"
    assert blocks[1].startswith(".venv/bin/edgeproof export runs/fashion-mini ")
    assert not [block for block in blocks if "make " in block]


def dry(*words):
    """Return what make would run, in lines."""
    command = ["make", "--always-make", "--dry-run", *words, "VENV=.venv"]  # a make around this one passes its VENV on
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # make's own
    env = alone | {"TORCH_INDEX": ""}  # or make would ask PyTorch's index
    return subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout.splitlines()


def test_another_index_gives_the_pytorch_that_training_asks_for_before_anything_asks_pypi():
    told = dry(".venv/main-job", "TORCH_INDEX=https://somewhere/cpu")
    first, second = [line for line in told if "pip install" in line]
    assert "--index-url https://somewhere/cpu" in first
    assert second.endswith("'.[train]'")
    asked = set(re.findall(r"'(torch\S*)'", first))
    assert len(asked) == 2
    assert asked <= {*project()["optional-dependencies"]["train"]}


class PyTorchs(BaseHTTPRequestHandler):
    """An index that has one package."""

    def do_GET(self):
        self.send_response(200 if self.path == "/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, *rest):
        pass


@pytest.fixture
def index():
    with ThreadingHTTPServer(("127.0.0.1", 0), PyTorchs) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("place", "settings", "taken"),
    [
        ("/cpu", {}, True),
        ("/other", {}, False),
        ("/cpu", {"PIP_INDEX_URL": "https://mirror.example/simple"}, False),
        ("/cpu", {"PIP_EXTRA_INDEX_URL": "https://mirror.example/simple"}, False),
        ("/cpu", {"PIP_FIND_LINKS": "wheels"}, False),
    ],
)
def test_without_a_gpu_pytorch_comes_from_its_own_index_if_that_answers_and_pip_is_free_to_ask_it(
    index, place, settings, taken
):
    assert chosen(index + place, **settings) == (index + place if taken else "")


def test_an_index_that_does_not_answer_leaves_pytorch_to_pip():
    assert not chosen("http://127.0.0.1:9/cpu")


def chosen(address, **settings):
    """Return what is printed where pip's settings are these alone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = clean | {"PIP_CONFIG_FILE": os.devnull} | settings
    command = [sys.executable, "-m", "tools.torch_index", address]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_an_empty_index_leaves_pytorch_to_pip():
    (only,) = [line for line in dry(".venv/main-job", "TORCH_INDEX=") if "pip install" in line]
    assert only.endswith("'.[train]'")


def tracked(*folders):
    return set(subprocess.check_output(["git", "ls-files", *folders], cwd=ROOT, text=True).splitlines())


@pytest.mark.slow
@pytest.mark.check
def test_the_wheel_holds_every_file_of_the_packages_and_no_other(tmp_path):
    with zipfile.ZipFile(wheel(tmp_path)) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == tracked("edgeproof", "runtime", "export", "pipeline")
    assert {f"{package}/py.typed" for package in ("edgeproof", "runtime", "export", "pipeline")} <= held
    assert {"pipeline/recipes/fashion-mini.toml", "pipeline/studies/two-core.toml"} <= held
    assert {"runtime/report/templates/report.html.j2", "pipeline/data/embedded/fashion-mini.npz"} <= held


@pytest.mark.slow
@pytest.mark.check
def test_the_source_distribution_is_a_checkout_with_tests_and_documentation(tmp_path):
    done = run([sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT], tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("edgeproof-*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    networks = tracked("benchmarks/results/cifar10-table")
    wanted = tracked("edgeproof", "runtime", "export", "pipeline", "tests", "docs", "tools", "benchmarks", "examples")
    assert not held & networks
    assert (wanted - networks) | {"Makefile", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"} <= held


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


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((), "--precision fp32,int8 --ships fp32"),
        (("SHIPS=int8",), "--precision fp32,int8 --ships int8"),
        (("PRECISION=fp32,fp16,int8",), "--precision fp32,fp16,int8 --ships fp32"),
        (("PRECISION=int8",), "--precision int8 --out"),
    ],
)
def test_make_exports_fp32_and_int8_and_fp32_ships_unless_told_otherwise(asked, told):
    (line,) = [line for line in dry("export", *asked) if line.startswith(".venv/bin/edgeproof export ")]
    assert told in " ".join(line.split())


def test_make_judges_what_ships_by_its_gate_before_it_shows_two_precisions_by_none():
    whole, *few = [line for line in dry("verify") if ".venv/bin/edgeproof verify " in line]
    assert whole == ".venv/bin/edgeproof verify bundles/fashion-mini --out reports/fashion-mini"
    assert all("--no-gate" in line and " --n " in line for line in few)
    assert "--precision fp32,int8" in few[-1]
