"""One image folder gets one answer: from `pack`, from `verify MODEL`, from `verify BUNDLE`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.export.strangers import command, packed, stranger

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


def test_folders_in_another_order_by_number_than_by_name_are_refused_alike(save: Any, tmp_path: Path) -> None:
    names = [f"class{number + 1}" for number in range(12)]
    path, model = level_folders(tmp_path / "set", names), save(brightness_classes(12))
    for words in (("pack", model, "--data", path, "--out", tmp_path / "b"), ("verify", model, "--data", path)):
        result = command(*words)
        assert result.exit_code == 3
        assert "the order of its classes is ambiguous" in result.stderr
        assert "--classes FILE" in result.stderr
    assert clean_accuracy(tmp_path / "run", model, "--data", path, "--classes", ",".join(names))[0] == 1


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
    said = command("pack", model, "--data", folder, "--out", tmp_path / "c", "--classes", "dark,dim,light,white")
    assert (said.exit_code, "order of names" in said.stderr) == (0, False)


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


def test_listed_classes_label_the_folders_of_a_model_and_of_a_bundle_alike(save: Any, tmp_path: Path) -> None:
    model, folder = save(brightness_classes(4)), level_folders(tmp_path / "set", ["n02", "n01"], 4)
    np.savez(tmp_path / "set.npz", x=np.zeros((2, 1, SIDE, SIDE), np.uint8), y=np.zeros(2, int))
    packed(model, tmp_path / "set.npz", tmp_path / "unnamed")
    packed(model, tmp_path / "set.npz", tmp_path / "named", "--classes", "dark,dim,light,white")
    names = tmp_path / "names.txt"
    names.write_text("n02\nn01\nn07\nn05\n")
    for subject in (model, tmp_path / "unnamed", tmp_path / "named"):
        assert command("verify", subject, "--data", folder, "--attacks", "clean").exit_code == 3
        out = tmp_path / f"{subject.name}-report"
        accuracy, _ = clean_accuracy(out, subject, "--data", folder, "--classes", names)
        assert accuracy == 1
        report = json.loads((out / "report.json").read_text())
        assert [row["name"] for row in report["per_class"]] == ["n02", "n01", "n07", "n05"]
        assert f"--classes {names}" in report["request"]["command"]
        result = command("verify", subject, "--data", folder, "--classes", "n01,n02,n03")
        assert (result.exit_code, "4 logits" in result.stderr) == (3, True), result.output


def test_mixed_sizes_are_brought_to_one_by_pack_verify_model_and_verify_bundle_alike(save: Any, tmp_path: Path) -> None:
    model, folder = save(brightness_classes(4)), level_folders(tmp_path / "set", ["a", "b", "c", "d"])
    random = np.random.default_rng(0)
    for path in sorted(folder.glob("*/*.png")):
        with Image.open(path) as image:
            level = image.getpixel((0, 0))
        pixels = random.normal(level, 9, random.integers(4, 12, 2)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    for name in ("pack", "verify"):
        result = command(name, model, "--data", folder, "--out", tmp_path / "out")
        assert (result.exit_code, "all of them: --size N" in result.stderr) == (3, True), result.output
    bundle = packed(model, folder, tmp_path / "bundle", "--size", f"6:{SIDE}")
    assert str(bundle.manifest.preprocessing) == f"6:{SIDE}"
    digests = set()
    for number, words in enumerate(
        (
            [model, "--data", folder, "--size", f"6:{SIDE}"],
            [tmp_path / "bundle"],
            [tmp_path / "bundle", "--data", folder],
            [tmp_path / "bundle", "--data", folder, "--size", f"6:{SIDE}"],
        )
    ):
        assert clean_accuracy(tmp_path / f"r{number}", *words)[0] == 1
        report = json.loads((tmp_path / f"r{number}" / "report.json").read_text())
        digests.add(report["data"]["sha256"])
        assert (f"--size 6:{SIDE}" in report["request"]["command"]) is ("--size" in words)
    assert len(digests) == 1
    other = command("verify", tmp_path / "bundle", "--data", folder, "--size", "5", "--out", tmp_path / "out")
    assert (other.exit_code, "1 x 5 x 5" in other.stderr) == (3, True), other.output


@pytest.mark.parametrize("size", ["", "0", "4:5", "big"])
def test_what_is_no_size_is_a_usage_error(size: str, save: Any, data: Path) -> None:
    for name in ("pack", "verify"):
        result = command(name, save(brightness_classes(4)), "--data", data, "--size", size)
        assert (result.exit_code, "256:224" in result.stderr) == (2, True), result.output


def test_size_is_of_pictures_alone(save: Any, data: Path, tmp_path: Path) -> None:
    model = save(brightness_classes(4))
    for words in (("pack", model, "--data", data), ("verify", model, "--data", data), ("verify", model)):
        result = command(*words, "--size", "4")
        assert (result.exit_code, "--size" in result.stderr) == (2, True), result.output
