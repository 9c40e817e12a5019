"""What `verify MODEL.onnx` says of models that others exported, honest and planted with a fault."""

import json

import numpy as np
import pytest
import torch

from export.network.to_onnx import to_onnx
from runtime.bundle.manifest import InputShape
from runtime.errors import BadModel
from tests.export.strangers import command, export
from tests.flow.plants import Around, ClippedSoftmax, DropoutLeftOn, Ramps, Rounding, Softmax, Times, with_steps

pytestmark = pytest.mark.slow

SOLD = {
    "adversarially trained": (lambda robust: robust, 0, set()),
    "rounding layer": (lambda robust: Around(robust, before=Rounding()), 0, {"no-parent"}),
    "logits times 1000": (lambda robust: Around(robust, after=Times()), 0, set()),
    "softmax output, which is cut": (lambda robust: Around(robust, after=Softmax()), 0, set()),
    "softmax output, clipped": (lambda robust: Around(robust, after=ClippedSoftmax()), 5, {"softmax"}),
    "activation in levels": (with_steps, 0, {"no-parent"}),
    "ramps too steep for a gradient": (
        lambda robust: with_steps(robust, Ramps),
        5,
        {"zero-gradient", "far-from-chance", "gradient-holds"},
    ),
}
"""What is planted in a model that somebody else exported, the exit code of its verdict, and what must be found."""


@pytest.mark.parametrize("fault", SOLD)
def test_verify_of_a_foreign_model_finds_what_is_planted_in_it_and_nothing_else(fault, planting, shortened, tmp_path):
    make, code, expected = SOLD[fault]
    robust, _, images = planting
    np.savez(tmp_path / "images.npz", x=images.images, y=images.labels)
    example = torch.zeros(2, 1, 28, 28)
    export(make(robust), example, tmp_path / "model.onnx", dynamo=True, dynamic=True, opset=20)
    options = ("--data", tmp_path / "images.npz", "--attacks", "fgsm,pgd,aa", "--out", tmp_path / "out", "--json")
    result = command("verify", tmp_path / "model.onnx", *options)
    assert result.exit_code == code, result.output
    found = {each["check"] for each in json.loads(result.stdout)["checks"] if each["state"] == "found"}
    print(f"{fault}: {found}")
    assert expected <= found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("fault", ["export", "pack"])
def test_a_network_with_dropout_left_on_is_refused_before_any_verdict(fault, planting, tmp_path):
    robust, _, images = planting
    spoilt = Around(robust, before=DropoutLeftOn())
    if fault == "export":
        with pytest.raises(BadModel, match="differently each time"):
            to_onnx(spoilt, InputShape(channels=1, height=28, width=28))
        return
    np.savez(tmp_path / "images.npz", x=images.images, y=images.labels)
    export(spoilt, torch.zeros(2, 1, 28, 28), tmp_path / "model.onnx", dynamo=True, dynamic=True, opset=20)
    result = command("pack", tmp_path / "model.onnx", "--data", tmp_path / "images.npz", "--out", tmp_path / "bundle")
    assert result.exit_code == 3
    assert "differently each time" in result.stderr
