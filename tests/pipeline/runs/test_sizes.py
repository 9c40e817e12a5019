"""Pictures of mixed sizes, from training to the verdict on the bundle: always brought to one size alike."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.recipe.schema import load_recipe
from runtime.bundle.opening import open_bundle
from runtime.cli import main
from runtime.errors import BadRecipe
from tests.pipeline.runs.small_runs import write_small


def run(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def mixed_pictures(path):
    """Make a folder of two kinds, bright and dark, each picture of another size."""
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("valid", 10)):
        for level, name in ((60, "10"), (190, "9")):
            (path / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(8, 20, 2)
                pixels = random.normal(level, 20, (height, width)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{number:02}.png")
    return path


def test_a_size_holds_from_training_to_the_verdict_on_the_bundle(tmp_path):
    folder, recipe = mixed_pictures(tmp_path / "set"), write_small(tmp_path)
    overrides = [f"data.path={folder}", "data.size=10:8", "train.max_steps=6", "train.batch=16"]
    trained = run("teach", recipe, "--out", tmp_path / "run", *(w for o in overrides for w in ("--set", o)))
    assert "classes: 9 ... 10, in the order of numbers" in trained.stderr
    assert 'size = "10:8"' in (tmp_path / "run" / "recipe.toml").read_text()
    run("export", tmp_path / "run", "--out", tmp_path / "bundle")
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.classes == ("9", "10")
    assert str(manifest.preprocessing) == "10:8"
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["preprocessing"] == {
        "resize": [10, 10], "crop": [8, 8], "interpolation": "bilinear",
    }  # fmt: skip
    assert "Pictures were resized to cover 10 x 10" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    digests = set()
    for number, words in enumerate(
        (
            ("evaluate", tmp_path / "run"),
            ("evaluate", tmp_path / "run", "--data", folder / "valid"),
            ("evaluate", tmp_path / "run", "--data", folder / "valid", "--size", "10:8", "--classes", "9,10"),
            ("verify", tmp_path / "bundle"),
            ("verify", tmp_path / "bundle", "--data", folder / "valid"),
        )
    ):
        report = json.loads(run(*words, "--attacks", "clean", "--json", "--out", tmp_path / f"r{number}").stdout)
        digests.add((report["data"]["sha256"], report["clean"]["accuracy"]))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.size=huge", "data.size: .*'huge' is not a size"),
        ("data.size=8:9", "larger than what is resized"),
        ("data.size=0", "data.size"),
    ],
)
def test_what_is_no_size_is_told_with_the_recipe(tmp_path, override, words):
    with pytest.raises(BadRecipe, match=words):
        load_recipe(str(write_small(tmp_path)), [override])


def test_a_set_known_by_name_has_its_own_size(tmp_path):
    with pytest.raises(BadRecipe, match="size applies to the pictures of a folder"):
        load_recipe("fashion-mini", ["data.size=32"])
