"""The embedded set, and the script that makes it."""

import gzip

import numpy as np
import pytest

from pipeline.data import make_fashion_mini
from pipeline.data.sets import EMBEDDED, fashion_mini
from runtime.errors import BadData


def test_fashion_mini_is_balanced_small_and_licensed():
    dataset = fashion_mini.load(EMBEDDED)
    assert dataset.train.images.shape == (10_000, 1, 28, 28)
    assert dataset.test.images.shape == (2_000, 1, 28, 28)
    assert set(np.bincount(dataset.train.labels)) == {1000}
    assert set(np.bincount(dataset.test.labels)) == {200}
    assert (EMBEDDED / "fashion-mini.npz").stat().st_size <= 6e6
    assert "MIT License" in (EMBEDDED / "fashion-mini.LICENSE").read_text()


def test_no_training_image_of_fashion_mini_is_also_a_test_image():
    dataset = fashion_mini.load(EMBEDDED)
    train = {image.tobytes() for image in dataset.train.images}
    assert not any(image.tobytes() in train for image in dataset.test.images)


def test_the_script_takes_the_first_images_of_every_class_in_order():
    labels = np.array([1, 0, 1, 1, 0, 0], np.uint8)
    assert make_fashion_mini.first_per_class(labels, 2).tolist() == [0, 1, 2, 4]


def test_the_script_refuses_missing_damaged_and_other_files(tmp_path):
    name = "train-images-idx3-ubyte.gz"
    with pytest.raises(BadData, match="missing"):
        make_fashion_mini.read_official(tmp_path, name)
    (tmp_path / name).write_bytes(gzip.compress(b"other"))
    with pytest.raises(BadData, match="SHA-256"):
        make_fashion_mini.read_official(tmp_path, name)
    (tmp_path / name).write_bytes(b"not gzip")
    with pytest.raises(BadData, match="damaged"):
        make_fashion_mini.read_official(tmp_path, name)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_a_damaged_or_missing_embedded_set_is_refused_and_says_where_it_looked(tmp_path, monkeypatch, damage):
    (tmp_path / "fashion-mini.npz").write_bytes((EMBEDDED / "fashion-mini.npz").read_bytes())
    monkeypatch.setattr("pipeline.data.sets.EMBEDDED", tmp_path)
    fashion_mini.load(tmp_path)
    damage(tmp_path / "fashion-mini.npz")
    with pytest.raises(BadData, match=str(tmp_path)):
        fashion_mini.load(tmp_path)
