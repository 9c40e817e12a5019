"""What a packed model and its classes are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import TypeAdapter

from export.foreign.order import name_of
from runtime.bundle.opening import open_bundle
from runtime.spec import Name
from tests.export.plain import X, plain
from tests.export.strangers import command, packed


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("my model (final)", "my-model-final"),
        (".hidden", "hidden"),
        ("модель", "model"),
        ("a" * 150, "a" * 100),
        ("net_v1.2", "net_v1.2"),
    ],
)
def test_name_of_a_file_becomes_one_that_a_manifest_takes(stem: str, name: str) -> None:
    assert name_of(Path(f"{stem}.onnx")) == name
    assert TypeAdapter(Name).validate_python(name) == name


def test_name_that_is_none_is_a_usage_error(data: Path, save: Any, tmp_path: Path) -> None:
    result = command("pack", save(plain()), "--data", data, "--name", "../up", "--out", tmp_path / "bundle")
    assert (result.exit_code, "is not a name" in result.stderr) == (2, True)


def test_name_with_blanks_is_packed_under_a_plain_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(plain(), "my model.onnx")
    result = command("pack", "my model.onnx", "--data", data)
    assert result.exit_code == 0, result.output
    assert open_bundle(tmp_path / "bundles" / "my-model").manifest.name == "my-model"
    shown = command("inspect", "bundles/my-model")
    assert "packed from my model.onnx, opset" in shown.stdout


def test_folders_of_images_name_the_classes(save: Any, tmp_path: Path) -> None:
    from PIL import Image

    for number, name in enumerate(("ant", "bee", "cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        pixels = (255 * X[number].transpose(1, 2, 0)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / name / "0.png")
    bundle = packed(save(plain()), tmp_path / "set", tmp_path / "bundle")
    assert bundle.manifest.classes == ("ant", "bee", "cat", "dog")
