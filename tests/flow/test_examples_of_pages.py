"""Every example of the documentation runs as written on a small model, or stands in one list with its reason.

A line of a block is an example if it begins as a command does. Where a command would attack or train for long, options
that shorten it are added. Another model, and other pictures, lie where the page says that the reader's lie.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.recipe.schema import load_recipe
from tests.command_line import edgeproof
from tests.paths import ROOT
from tests.tiny import graph

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

BLOCK = re.compile(r"^ *```(\w*)(?: title=\"(.*?)\")?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
PROGRAMS = (
    "edgeproof make python pip docker git gdown torchrun srun model_signing wandb tensorboard eval umask mkdir cd echo"
)
COMMAND = re.compile(rf"(\w+=\S+ )?(\.venv/bin/)?({'|'.join(PROGRAMS.split())})( |$)")
PAGES = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text())
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}

ELSEWHERE = {
    "docs/fleet.md yaml": "tests/flow/test_fleet.py",
    "docs/how-to/imagenet-model.md": "tests/flow/test_how_tos.py",
    "docs/how-to/own-pictures.md": "tests/flow/test_how_tos.py",
    "docs/notebooks/quickstart.md": "tests/api/test_notebook.py",
    "docs/reference/python.md": "tests/api/test_the_page.py",
    "docs/tutorial.md": "tests/flow/test_readme.py",
    "README.md sh": "tests/flow/test_readme.py",
    "README.md python": "tests/api/test_the_page.py",
}
"""Pages, or their blocks of one language, that another test runs."""
NOT_RUN = {
    r"make (?!docker).*": "needs a checkout with an environment of its own: tests/flow/test_readme.py, test_cifar10.py",
    r"(pip install|git clone|gdown|mkdir -p models|wandb login).*": "needs the network",
    r"edgeproof (push|verify) .*hf://.*": "needs the Hugging Face Hub: tests/runtime/hub has a server of its own",
    r".*(log\.mlflow=http|tensorboard ).*": "needs a server, or is one: tests/pipeline/tracking",
    r"(docker|make docker-).*": "needs Docker: make smoke builds and runs the images",
    r"edgeproof .*tensorrt.*": "needs a GPU",
    r"((torchrun|srun) .*)?edgeproof .*(--devices|--ray).*": "needs several GPUs, or a cluster",
    r"edgeproof study .*": "trains for hours: tests/pipeline/study",
    r"edgeproof (distill|teach) cifar10.*": "needs a GPU for hours; that its recipe is one is tested here",
    r"edgeproof .*cifar10-?.*": "needs a run of CIFAR-10: tests/flow/test_cifar10.py",
    r"(OMP_NUM_THREADS=1 )?python -m (benchmarks|tests)\..*": "measures for hours",
    r"model_signing .*": "needs an environment of its own: tests/runtime/bundle/test_openssf.py",
}
"""Commands that no test of a page runs, with the reason."""
PLACES = {
    "BUNDLE": "bundles/fashion-mini",
    "$BUILD_NUMBER": "8",
    '"$RUN"': "runs/fashion-mini",
    "RECIPE": "fashion-mini",
    "/opt/": "opt/",
    ".venv/bin/": "",
}
"""What a page leaves to the reader, and what lies elsewhere here."""
STEP = "--set train.max_steps=1 --set train.batch=8 --set data.holdout=20"
SHORTER = {"verify": "--n 3", "teach": STEP, "distill": f"{STEP} --allow-weak-teacher"}
"""What keeps a command short; a teacher of one step is weak."""
OUTCOMES = {"verify": {0, 1, 5}, "merge": {0, 1, 5}}
"""Any verdict will do."""


def elsewhere(page, language):
    return page in ELSEWHERE or f"{page} {language}" in ELSEWHERE


def steps_of(workflow):
    """Yield the commands of a workflow's steps."""
    for job in (workflow.get("jobs") or {}).values() if isinstance(workflow, dict) else ():
        for step in job["steps"]:
            yield from step.get("run", "").splitlines()


def commands(page):
    """Return the commands of a page in order, each as one line."""
    lines = []
    for language, title, body in PAGES[page]:
        if elsewhere(page, language) or title.endswith(".py"):
            continue
        if language == "yaml":
            lines += steps_of(yaml.safe_load(body))
        elif language in ("sh", "bash", "text"):
            lines += re.sub(r" *\\\n *", " ", body).splitlines()
    return [line.strip() for line in lines if COMMAND.match(line.strip())]


def reasons(command):
    return [reason for pattern, reason in NOT_RUN.items() if re.fullmatch(pattern, command)]


NAMED_ONLY = (
    "README.md",
    "docs/bench.md",
    "docs/fleet.md",
    "docs/how-to/jetson.md",
    "docs/how-to/long-runs.md",
    "docs/how-to/own-data.md",
    "docs/how-to/own-device.md",
    "docs/how-to/own-teacher.md",
    "docs/how-to/several-gpus.md",
    "docs/how-to/watch-a-run.md",
    "docs/precision.md",
    "docs/recipes.md",
    "docs/recipes/runs.md",
    "docs/signing.md",
)
"""Pages whose commands take minutes each: tests/flow/test_documentation.py holds them to their names and options."""
SHOWN = [page for page in PAGES if page not in NAMED_ONLY and any(not reasons(command) for command in commands(page))]


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_runs_elsewhere_is_a_page_and_its_test(page):
    assert page.split()[0] in PAGES
    assert Path(page.split()[0]).name in (ROOT / ELSEWHERE[page]).read_text()


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_reason_is_that_of_some_command(pattern):
    assert [command for page in PAGES for command in commands(page) if re.fullmatch(pattern, command)]


RECIPES = sorted({c for page in PAGES for c in commands(page) if re.match(r"edgeproof (distill|teach) cifar10", c)})


@pytest.mark.parametrize("command", RECIPES)
def test_a_recipe_that_is_not_run_is_one(command):
    words = command.split("#")[0].split()
    assert load_recipe(words[2], [words[i + 1] for i, word in enumerate(words) if word == "--set"])


def tables():
    return [(page, body) for page, found in PAGES.items() for language, _, body in found if language == "toml"]


@pytest.mark.parametrize(("page", "table"), [each for each in tables() if "keys = " not in each[1]])
def test_a_table_of_a_recipe_is_read(page, table, tmp_path):
    base = "" if "base = " in table else 'base = "cifar10"\n'
    text = base + table.replace('"my-recipe"', '"cifar10"').replace("cifar10-int8", "mine").replace(
        '"..."', f'"{"0" * 64}"'
    )
    (tmp_path / "mine.toml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.toml"))


COLOURS = """
<ir_version: 8, opset_import: ["" : 18]>
colours (float[B, 3, H, W] input) => (float[B, K] logits) {
  mean = GlobalAveragePool(input)
  flat = Flatten(mean)
  logits = Gemm(flat, w, b)
}
"""
"""A model for pictures of any size, which tells them by their colour."""


def pictures(place, count, side, seed):
    random = np.random.default_rng(seed)
    for number, name in enumerate(("ant", "bee", "cat")):
        (place / name).mkdir(parents=True)
        for one in range(count):
            pixels = random.integers(60, 120, (side, side, 3)) + 80 * (np.arange(3) == number)
            Image.fromarray(pixels.astype(np.uint8)).save(place / name / f"{one:04}.png")


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """Return a directory with all that pages take for granted."""
    place = tmp_path_factory.mktemp("stage")
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (24, 3, 8, 8), np.uint8), random.integers(0, 3, 24)
    for name in ("test", "train"):
        np.savez(place / f"{name}.npz", x=x if name == "test" else 255 - x, y=y)
    (place / "model.onnx").write_bytes(graph(COLOURS, 20 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)))
    shutil.copy(place / "model.onnx", place / "candidate.onnx")
    pictures(place / "pictures", 2, 256, 1)
    (place / "classes.txt").write_text("ant\nbee\ncat\n")
    for name, part, count in (("my-images", "train", 40), ("my-images", "test", 4), ("other-images", "test", 4)):
        pictures(place / name / part, count, 8, len(part) + count)
    (place / "mine.toml").write_text(
        'base = "cifar10"\nname = "mine"\n[data]\npath = "my-images"\nholdout = 20\n[student]\nwidth = 0.25\n'
        '[search]\nsteps = 1\nstep = "8/255"\n'
    )
    pack = "pack model.onnx --data test.npz --out bundles/fashion-mini"
    for command in ("key new --out own", pack, "sign bundles/fashion-mini --key own/private.pem"):
        code, _, told = run(f"edgeproof {command}", place)
        assert code == 0, told
    (place / "public.pem").symlink_to("own/public.pem")
    return place


def run(command, place):
    """Run a command there, ours in this process and any other in a shell; return exit code, stdout and stderr."""
    key = place / "keys/private.pem"
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "SIGNING_KEY": key.read_text() if key.exists() else "",
    }
    if command.startswith("edgeproof ") and not set("$&|>") & set(command):
        with contextlib.chdir(place):
            called = edgeproof(*shlex.split(command)[1:], env=environment)
        return called.exit_code, called.stdout, called.stderr
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "OMP"))}
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, cwd=place, env=kept | environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def finished(*names):
    """Return what writes finished runs under these names."""

    def write(stage):
        judge(f"edgeproof verify bundles/fashion-mini --attacks fgsm --no-gate --out reports/{names[0]}", stage)
        for name in names[1:]:
            shutil.copytree(stage / "reports" / names[0], stage / "reports" / name)

    return write


def released(stage):
    judge("edgeproof verify candidate.onnx --data test.npz --eps 4/255 --out reports/released", stage)


def attested(stage):
    (stage / "attestation.json").symlink_to("report/attestation.json")


LAID = {
    "docs/attestations.md": attested,
    "docs/how-to/ci-gate.md": released,
    "docs/how-to/compare.md": finished("fp32", "fp16", "int8", "desk", "orin"),
    "docs/report.md": finished("fashion-mini", "int8", "fp32", "int8-on-the-device"),
}
"""What lies ready for a page beside the stage."""
REFUSED = {
    "edgeproof install BUNDLE --to /opt/model --trust public.pem --attestation attestation.json "
    "--require-attestation policy.toml": "does not meet policy.toml"
}
"""Commands that a small model must not pass, and what they say."""


def shortened(command):
    """Return a command with its places put in and the options that shorten it, and its name."""
    for written, here in PLACES.items():
        command = command.replace(written, here)
    command = re.sub(r" --n \d+", "", command.split("#")[0]).strip()
    name = command.split()[1] if command.startswith("edgeproof ") else ""
    return f"{command} {SHORTER.get(name, '')}".strip(), name


def makes(line, name):
    """Return the directory that a command makes, which must be new."""
    if name not in ("teach", "distill", "export", "verify", "key") or "--resume" in line:
        return None
    if out := re.search(r"--out (\S+)", line):
        return out[1]
    return f"runs/{Path(line.split()[2]).stem}" if name == "distill" else None


def judge(command, stage):
    """Run a command of a page there; what lies in the place of what it makes, makes room."""
    line, name = shortened(command)
    if made := makes(line, name):
        shutil.rmtree(stage / made, ignore_errors=True)
    code, printed, told = run(line, stage)
    if command in REFUSED:
        assert (code, REFUSED[command] in told) == (3, True), f"$ {line}\n{printed}\n{told}"
    else:
        assert code in OUTCOMES.get(name, {0}), f"$ {line}\n{printed}\n{told}"


@pytest.mark.parametrize("page", SHOWN)
def test_the_commands_of_a_page_run(page, stage, tmp_path):
    place = tmp_path / "here"
    shutil.copytree(stage, place, symlinks=True)
    LAID.get(page, lambda _: None)(place)
    for language, title, body in PAGES[page]:
        if title and language == "toml":
            (place / title).write_text(body)
    for command in dict.fromkeys(commands(page)):
        if not reasons(command):
            judge(command, place)


IN_PYTHON = ("docs/how-to/own-device.md", "docs/recipes.md")


def test_every_block_is_in_a_language_of_which_the_examples_are_tested():
    blocks = [(page, language) for page, found in PAGES.items() for language, *_ in found]
    assert {language for _, language in blocks} == {"sh", "bash", "text", "toml", "yaml", "json", "python"}
    assert not [
        page
        for page, language in blocks
        if language == "python" and page not in IN_PYTHON and not elsewhere(page, language)
    ]
    for found in PAGES.values():
        for language, _, body in found:
            if language in ("yaml", "json"):
                assert {"yaml": yaml.safe_load, "json": json.loads}[language](body)
