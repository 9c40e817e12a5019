"""Anyone's ONNX file, judged by `verify` without a bundle."""

from __future__ import annotations

import importlib.metadata
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.export.plain import X, network, no_rule, plain
from tests.export.strangers import command, packed, stranger

if TYPE_CHECKING:
    from pathlib import Path


def verified(*words: Any) -> Any:
    result = command("verify", *words, "--json")
    return result, json.loads(result.stdout) if result.stdout.startswith("{") else None


def test_model_is_verified_without_a_bundle(data: Path, save: Any, tmp_path: Path) -> None:
    result, report = verified(
        save(plain()), "--data", data, "--mean", "0.1", "--std", "0.9", "--eps", "2/255", "--out", tmp_path / "r"
    )
    assert result.exit_code == 0, result.output
    assert report["artifact"]["name"] == "model"
    assert report["threat_model"]["eps"] == pytest.approx(2 / 255)
    assert [row["name"] for row in report["attacks"]] == ["fgsm", "pgd", "cw"]
    assert "verify MODEL.onnx" in report["request"]["command"]
    assert "--mean 0.1 --std 0.9" in report["request"]["command"]
    assert report["data"]["n"] == 12
    assert (tmp_path / "r" / "report.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "r", "set.npz"]


def test_precision_that_a_model_is_not_in_is_refused_by_the_file_that_the_user_gave(data: Path, save: Any) -> None:
    model = save(plain())
    result = command("verify", model, "--data", data, "--precision", "int8")
    assert result.exit_code == 3
    assert f"{model} has no precision 'int8'" in result.stderr
    assert "it has: fp32" in result.stderr


def test_packed_bundle_is_signed_and_one_without_is_not_trusted(data: Path, save: Any, tmp_path: Path) -> None:
    assert command("key", "new", "--out", tmp_path / "keys").exit_code == 0
    trust = ("--trust", tmp_path / "keys" / "public.pem")
    packed(save(plain()), data, tmp_path / "signed", "--key", tmp_path / "keys" / "private.pem")
    result, report = verified(tmp_path / "signed", *trust, "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert report["artifact"]["authenticated"] is True
    packed(save(plain()), data, tmp_path / "unsigned")
    assert verified(tmp_path / "unsigned", *trust, "--out", tmp_path / "u")[0].exit_code == 3


def test_figures_of_a_model_are_those_of_its_bundle(data: Path, save: Any, tmp_path: Path) -> None:
    model = save(plain())
    packed(model, data, tmp_path / "bundle", "--std", "0.9")
    _, direct = verified(model, "--data", data, "--std", "0.9", "--out", tmp_path / "a")
    _, by_way = verified(tmp_path / "bundle", "--out", tmp_path / "b")
    for report in (direct, by_way):
        for row in report["attacks"]:
            del row["seconds"]
    assert direct["attacks"] == by_way["attacks"]
    assert direct["artifact"]["sha256"] == by_way["artifact"]["sha256"]
    assert direct["data"] == by_way["data"]


def test_model_without_a_rule_is_judged_by_square_alone_and_the_evidence_called_weak(
    data: Path, save: Any, tmp_path: Path
) -> None:
    model = save(no_rule())
    result, _ = verified(model, "--data", data, "--out", tmp_path / "r")
    assert (result.exit_code, "Sinh" in result.stderr) == (3, True)
    np.savez(data, x=X[:2], y=network(torch.from_numpy(X[:2])).cumsum(1).argmax(1).numpy())
    result, report = verified(model, "--data", data, "--gradient", "none", "--eps", "8/255", "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert [(row["name"], row["gradient"]) for row in report["attacks"]] == [("square", "none")]
    found = [warning["check"] for warning in report["warnings"]]
    assert found == ["black-box-only", "clean-above-chance"]  # of two images
    assert "weak" in report["warnings"][0]["message"]


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--mean", "1"], 5)])
def test_wrong_normalisation_passes_no_gate(options: list[str], code: int, save: Any, tmp_path: Path) -> None:
    brightness = np.float32([0.4, 0.6])[np.arange(60) % 2]
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (60, 3, 8, 8))
    np.savez(tmp_path / "set.npz", x=(brightness.reshape(-1, 1, 1, 1) + noise).astype(np.float32), y=np.arange(60) % 2)
    weights = np.stack([np.zeros(192), np.full(192, 20 / 192)], axis=1).astype(np.float32)
    model = stranger(
        ["f = Flatten (image)", "scores = Gemm (f, w, b)"],
        dims=["n", 3, 8, 8], out=["n", 2], constants={"w": weights, "b": np.float32([0, -10])},
    )  # fmt: skip
    asked = ("--data", tmp_path / "set.npz", "--eps", "1/255", "--fail-under", "50%", "--out", tmp_path / "run")
    result, report = verified(save(model), *asked, *options)
    assert result.exit_code == code, result.output
    found = {warning["check"]: warning["message"] for warning in report["warnings"]}
    assert ("clean-above-chance" in found) == (code == 5), found
    if code:
        assert "clean accuracy is 50.0 %" in found["clean-above-chance"]


def test_attack_that_needs_the_gradient_is_refused_without_it(data: Path, save: Any, tmp_path: Path) -> None:
    result = command("verify", save(plain()), "--data", data, "--gradient", "none", "--attacks", "clean,pgd")
    assert result.exit_code == 2
    assert "pgd needs the gradient" in result.stderr


def test_model_brings_no_images(save: Any) -> None:
    result = command("verify", save(plain()))
    assert (result.exit_code, "--data" in result.stderr) == (2, True)


def test_drop_of_a_model_file_needs_a_run_to_be_measured_from(data: Path, save: Any, tmp_path: Path) -> None:
    asked = (save(plain()), "--data", data, "--attacks", "fgsm", "--max-drop", "1%")
    result = command("verify", *asked)
    assert (result.exit_code, "--max-drop has nothing to compare" in result.stderr) == (2, True)
    assert "hint: --against DIR" in result.stderr
    verified(*asked[:-2], "--out", tmp_path / "before")
    result, report = verified(*asked, "--against", tmp_path / "before", "--out", tmp_path / "r")
    assert result.exit_code in (0, 5)
    assert report["paired"]["difference"] == 0


def test_normalisation_of_a_bundle_is_its_own(data: Path, save: Any, tmp_path: Path) -> None:
    packed(save(plain()), data, tmp_path / "bundle")
    result = command("verify", tmp_path / "bundle", "--mean", "0.5")
    assert (result.exit_code, "a bundle holds its own" in result.stderr) == (2, True)


def test_file_of_another_kind_is_no_model(tmp_path: Path, data: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    result = command("verify", tmp_path / "model.pt", "--data", data)
    assert result.exit_code == 3
    assert "a model ends in .onnx" in result.stderr


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, data: Path, save: Any) -> None:
    def absent(self: Any) -> Any:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    entries = importlib.metadata.entry_points(group="edgeproof.preparers")
    assert "onnx" in entries.names
    model = save(plain())
    load = importlib.metadata.EntryPoint.load
    monkeypatch.setattr(
        importlib.metadata.EntryPoint,
        "load",
        lambda self: absent(self) if self.group == "edgeproof.preparers" else load(self),
    )
    result = command("verify", model, "--data", data)
    assert result.exit_code == 4
    assert "pip install '.[onnx]'" in result.stderr
