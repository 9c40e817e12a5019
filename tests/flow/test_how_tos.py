"""The commands of two how-tos, as written, on a few small pictures: from files of everyone to a verdict."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w
import tomllib
import torch
from torchvision.models import ShuffleNet_V2_X0_5_Weights

from runtime.bundle.opening import open_bundle
from tests.flow.pictures import LOOKS, class_folders, weights_of
from tests.paths import ROOT

HOW_TOS = ROOT / "docs" / "how-to"
CODES = {"measured": 0, "passed": 0, "failed": 1, "inconclusive": 5}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def blocks(page, language):
    """Return what is in the page's blocks of a language."""
    return re.findall(rf"^```{language}\b.*?\n(.*?)^```", (HOW_TOS / page).read_text(), re.MULTILINE | re.DOTALL)


def run_all(page, place, **environment):
    """Run the page's commands in order, and return what each wrote; a verdict may be any."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = {}
    for command in "".join(blocks(page, "sh")).splitlines():
        began = time.monotonic()
        result = subprocess.run(
            command,
            shell=True,
            cwd=place,
            env={**os.environ, "PATH": path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"$ {command}\n{result.stderr}{result.stdout}")
        print(f"exit code {result.returncode}, {time.monotonic() - began:.0f} s")
        allowed = set(CODES.values()) if command.startswith("edgeproof verify") else {0}
        assert result.returncode in allowed, f"{command}\n{result.stdout}\n{result.stderr}"
        if command.startswith("edgeproof verify"):
            report = report_of(place / command.split("--out ")[1])
            assert result.returncode == CODES[report["verdict"]]
        outputs[command] = result.stdout
    return outputs


def report_of(directory):
    return json.loads((directory / "report.json").read_text())


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Go the way of a torchvision model; its published weights lie where torch keeps what it has fetched."""
    place = tmp_path_factory.mktemp("imagenet-model")
    class_folders(place / "pictures", 2, seed=1, sides=(160, 320))
    class_folders(place / "more", 4, seed=2, sides=(160, 320))
    (place / "torch/hub/checkpoints").mkdir(parents=True)
    name = Path(ShuffleNet_V2_X0_5_Weights.DEFAULT.url).name
    torch.save(weights_of("shufflenet_v2_x0_5"), place / "torch/hub/checkpoints" / name)
    (script,) = blocks("imagenet-model.md", "python")
    (place / "export_model.py").write_text(script)
    return place, run_all("imagenet-model.md", place, TORCH_HOME=str(place / "torch"))


def test_a_model_of_1000_classes_is_judged_in_fp32_and_int8(judged):
    place, _ = judged
    manifest = open_bundle(place / "bundles/shufflenet").manifest
    assert (set(manifest.graphs), manifest.ships, len(manifest.classes)) == ({"fp32", "int8"}, "int8", 1000)
    assert str(manifest.preprocessing) == "256:224"
    for precision in ("fp32", "int8"):
        report = report_of(place / "reports" / precision)
        assert report["artifact"]["precision"] == precision
        assert report["clean"]["n"] == 2 * len(LOOKS)
        assert report["clean"]["accuracy"] >= 0.75
        assert report["robust_accuracy"]["value"] <= report["clean"]["accuracy"]
        assert {"fgsm", "pgd", "square"} <= {attack["name"] for attack in report["attacks"]}


def test_what_int8_costs_is_compared_image_by_image(judged):
    _, outputs = judged
    compared = next(text for command, text in outputs.items() if " compare " in command)
    assert "fp32" in compared
    assert "int8" in compared
    assert "95 %" in compared or "95%" in compared


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """Go the way of one's own pictures, by the page's recipe with smaller numbers.

    The student is a ResNet-18. In so few steps, the page's MobileNetV2 may learn nothing or lose too much in int8.
    """
    place = tmp_path_factory.mktemp("own-pictures")
    class_folders(place / "my-pictures/train", 40, seed=1, sides=(40, 90))
    class_folders(place / "my-pictures/test", 6, seed=2, sides=(40, 90))
    (text,) = blocks("own-pictures.md", "toml")
    recipe = tomllib.loads(text)
    recipe["data"] |= {"size": 32, "holdout": 40}
    recipe["student"] |= {"arch": "resnet18", "width": 0.25}
    recipe["train"] |= {"epochs": 4, "batch": 20, "lr": 0.05}
    recipe["search"] = {"step": "8/255", "steps": 1}
    (place / "mine.toml").write_text(tomli_w.dumps(recipe))
    return place, recipe, run_all("own-pictures.md", place)


def test_a_student_of_own_pictures_is_gated_in_int8(gated):
    place, recipe, _ = gated
    manifest = open_bundle(place / "bundles/mine").manifest
    assert (manifest.ships, sorted(manifest.classes)) == ("int8", sorted(LOOKS))
    report = report_of(place / "reports/mine")
    assert report["artifact"]["precision"] == "int8"
    assert report["clean"]["n"] == 6 * len(LOOKS)
    assert report["clean"]["accuracy"] > 1.5 / len(LOOKS)
    assert report["gate"]["fail_under"] == float(recipe["gate"]["fail_under"].rstrip("%")) / 100
    assert report["gate"]["max_drop"] == float(recipe["gate"]["max_drop"].rstrip("%")) / 100
    assert report["paired"]["both"] + report["paired"]["neither"] > 0


def test_other_pictures_are_judged_by_the_size_and_classes_of_the_bundle(gated):
    place, _, _ = gated
    again, before = report_of(place / "reports/again"), report_of(place / "reports/mine")
    assert again["clean"]["n"] == 20
    assert again["clean"]["accuracy"] >= before["clean"]["accuracy"] - 0.2
