"""What lies ready for a page beside the stage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.flow.stage import judge, succeed
from tests.paths import ROOT
from tests.tiny import FORWARD, graph, linear_task

VENDOR = '''
import numpy as np


class Board:
    """Takes bytes, and answers in steps of 1/16."""

    def run(self, image):
        assert image.dtype == np.uint8
        with np.load("board.npz") as model:
            return np.round(16 * (model["weight"] @ (image.reshape(-1) / 255) + model["bias"])) / 16


def connect(port):
    assert port == "/dev/ttyUSB0"
    return Board()
'''
"""A board's library, as its vendor ships it; the board is in it."""


def in_turn(*commands):
    """Return what runs these commands first."""

    def write(place):
        for command in commands:
            judge(command, place)

    return write


def finished(*names):
    """Return what writes finished runs under these names."""

    def write(place):
        judge(f"edgeproof verify bundles/fashion-mini --attacks fgsm --no-gate --out reports/{names[0]}", place)
        for name in names[1:]:
            shutil.copytree(place / "reports" / names[0], place / "reports" / name)

    return write


def attested(place):
    (place / "attestation.json").symlink_to("report/attestation.json")


def own_recipe(place):
    """Lay down the recipe that docs/recipes.md begins with, and the teacher that it names."""
    text = (ROOT / "docs/recipes.md").read_text()
    (place / "my.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    shutil.copytree(place / "runs/fashion-mini", place / "runs/my-teacher")


def with_boards(place):
    """Lay down the examples, a linear model in the formats of two devices, its bundle, and a board with its library."""
    pytest.importorskip("ai_edge_litert", reason="has no wheel for this Python")
    from tests.runtime.external.models import tflite

    shutil.copytree(ROOT / "examples", place / "examples")
    shutil.copy(ROOT / "examples/judges/judge.py", place)
    weight, bias, images, labels = linear_task()  # of its first three images one is right: Square asks for each
    np.savez(place / "board.npz", weight=weight, bias=bias)
    (place / "vendor.py").write_text(VENDOR)
    (place / "model.tflite").write_bytes(tflite(weight, bias))
    (place / "model.onnx").write_bytes(graph(FORWARD, weight, bias))
    np.savez(place / "test.npz", x=np.round(images * 255).astype(np.uint8), y=labels)
    shutil.rmtree(place / "bundles/fashion-mini")
    succeed("edgeproof pack model.onnx --data test.npz --out bundles/fashion-mini", place)


AA = "edgeproof verify bundles/fashion-mini --attacks aa --shard"
LAID = {
    "docs/attestations.md": attested,
    "docs/fleet.md": in_turn(*(f"{AA} {i}/2 --out shard-{i}" for i in (1, 2))),
    "docs/how-to/ci-gate.md": in_turn(
        "edgeproof verify candidate.onnx --data test.npz --eps 4/255 --out reports/released"
    ),
    "docs/how-to/compare.md": finished("fp32", "fp16", "int8", "desk", "orin"),
    "docs/how-to/long-runs.md": in_turn(*(f"edgeproof verify BUNDLE --shard {i}/3 --out part{i}" for i in (2, 3))),
    "docs/how-to/own-device.md": with_boards,
    "docs/recipes.md": own_recipe,
    "docs/recipes/runs.md": in_turn("edgeproof distill RECIPE"),
    "docs/report.md": finished("fashion-mini", "int8", "fp32", "int8-on-the-device"),
}


def own_network_is_attacked(place):
    (report,) = (place / "reports").glob("own-net*/report.json")
    assert json.loads(report.read_text())["clean"]["correct"] > 0


HOLDS = {"docs/recipes.md": own_network_is_attacked}
"""What must hold once a page's commands have run."""


def lay(page, place, blocks):
    """Lay down what a page needs, and each of its files of a title."""
    LAID.get(page, lambda _: None)(place)
    for language, title, body in blocks:
        if title and language in ("toml", "python"):
            Path(place / title).parent.mkdir(exist_ok=True)
            (place / title).write_text(body)
