"""One image folder gets one answer: from `pack`, from `verify MODEL`, from `verify BUNDLE`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.export.foreign.strangers import command, packed, stranger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIDE = 4


def brightness_classes(count: int) -> Any:
    """Return a classifier of grey images: of `count` levels of brightness, the one that is nearest."""
    levels = np.linspace(0, 1, count, dtype=np.float32)
    weight = np.repeat(levels[None], SIDE * SIDE, 0) * 2 / (SIDE * SIDE)  # -(m - level)^2 without m^2
    return stranger(
        ["f = Flatten (image)", "m = MatMul (f, w)", "scores = Sub (m, b)"],
        dims=["n", 1, SIDE, SIDE],
        out=["n", count],
        constants={"w": weight, "b": levels**2},
    )


def level_folders(path: Path, names: Sequence[str], count: int | None = None) -> Path:
    """Make a folder for each name, with pictures of the brightness of its place."""
    count = count or len(names)
    for place, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (SIDE, SIDE), round(255 * place / (count - 1))).save(path / name / f"{number}.png")
    return path


def clean_accuracy(out: Path, *words: Any) -> tuple[float, str]:
    result = command("verify", *words, "--attacks", "clean", "--eps", "1/255", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["clean"]["accuracy"], result.stderr


NAMES = {
    "numbers": [str(number) for number in range(12)],
    "numbers with zeros": [f"{number:02}" for number in range(12)],
    "numbers from 1": [str(number + 1) for number in range(12)],
    "words": [f"kind-{letter}" for letter in "abcdefghijkl"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_one_folder_gets_one_answer_from_pack_verify_model_and_verify_bundle(
    names: list[str], save: Any, tmp_path: Path
) -> None:
    model, folder = save(brightness_classes(12)), level_folders(tmp_path / "set", names)
    bundle = packed(model, folder, tmp_path / "named")
    assert bundle.manifest.classes == tuple(names)
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 1, SIDE, SIDE), np.uint8), y=np.zeros(2, int))
    packed(model, tmp_path / "set.npz", tmp_path / "unnamed")
    order = f"classes: {names[0]} ... {names[-1]}, in the order of numbers" if names[0][0] in "01" else "order of names"
    for place, words in enumerate(
        (
            [model, "--data", folder],
            [tmp_path / "named"],
            [tmp_path / "named", "--data", folder],
            [tmp_path / "unnamed", "--data", folder],
        )
    ):
        accuracy, said = clean_accuracy(tmp_path / f"report-{place}", *words)
        assert accuracy == 1, words
        assert (order in said) is ("--data" in words)


@pytest.mark.parametrize("count", [11, 13])
def test_folders_that_are_not_as_many_as_logits_are_refused_alike(count: int, save: Any, tmp_path: Path) -> None:
    model, names = save(brightness_classes(12)), [str(number) for number in range(count)]
    folder = level_folders(tmp_path / "set", names)
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 1, SIDE, SIDE), np.uint8), y=np.zeros(2, int))
    packed(model, tmp_path / "set.npz", tmp_path / "unnamed")
    for words in (("pack", model), ("verify", model), ("verify", tmp_path / "unnamed")):
        result = command(*words, "--data", folder, "--out", tmp_path / "out")
        assert result.exit_code == 3, result.output
        assert f"{count} classes" in result.stderr
        assert "12 logits" in result.stderr
        assert "--classes" in result.stderr
        assert not (tmp_path / "out").exists()


def test_classes_that_are_listed_say_which_folder_is_which(save: Any, tmp_path: Path) -> None:
    model, folder = save(brightness_classes(4)), level_folders(tmp_path / "set", ["dark", "dim"], 4)
    assert command("pack", model, "--data", folder, "--out", tmp_path / "b").exit_code == 3
    bundle = packed(model, folder, tmp_path / "b", "--classes", "dark,dim,light,white")
    assert bundle.manifest.classes == ("dark", "dim", "light", "white")
    assert clean_accuracy(tmp_path / "r", tmp_path / "b")[0] == 1


@pytest.mark.parametrize("classes", ["a,b,c", "a,b,c,d,e", "a,b,c,a"])
def test_lists_of_classes_that_do_not_fit_are_refused(classes: str, save: Any, data: Path, tmp_path: Path) -> None:
    model, folder = save(brightness_classes(4)), level_folders(tmp_path / "set", ["a", "b"], 4)
    result = command("pack", model, "--data", folder, "--out", tmp_path / "b", "--classes", classes)
    assert result.exit_code == 3, result.output
    assert "--classes" in result.stderr


def test_folder_that_shadows_a_known_set_does_not_lend_its_names(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(0).standard_normal((784, 10)).astype(np.float32)
    model = stranger(
        ["f = Flatten (image)", "scores = MatMul (f, w)"],
        dims=["n", 1, 28, 28],
        out=["n", 10],
        constants={"w": weight},
    )
    level_folders(tmp_path / "fashion-mini", list("abcdefghij"))
    monkeypatch.chdir(tmp_path)
    bundle = packed(save(model), "fashion-mini", tmp_path / "bundle")  # type: ignore[arg-type]
    assert bundle.manifest.classes[:2] == ("T-shirt/top", "Trouser")
    assert bundle.manifest.evaluation.name == "fashion-mini/test"
