"""Folders of pictures as sets to train on."""

import shutil

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from pipeline.data.sets import hold_out, load_dataset
from runtime.errors import BadData
from runtime.images.decode import Pictures
from runtime.images.find import find_images
from runtime.images.preprocessing import Size


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
def test_an_image_folder_is_a_data_set(tmp_path, test_name):
    for split in ("train", test_name):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 6), (label * 255, 0, 0)).save(tmp_path / split / name / "0.png")
    dataset = load_dataset(None, tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.images.shape == (2, 3, 6, 8)
    assert dataset.test.labels.tolist() == [0, 1]


def picture_folder(path, count=8, size=8, classes=("cat", "dog")):
    """An image folder of different pictures."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, name in enumerate(classes):
            (path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size, size, 3), np.uint8)
                pixels[0, 0] = label
                Image.fromarray(pixels).save(path / split / name / f"{number}.png")
    return path


def test_a_folder_that_does_not_fit_the_memory_is_decoded_when_it_is_looked_at(tmp_path, monkeypatch):
    folder = picture_folder(tmp_path / "set")
    decoded = load_dataset(None, folder)
    monkeypatch.setattr("pipeline.data.sets.free_memory", lambda device: 100)
    listed = load_dataset(None, folder)
    assert isinstance(decoded.train.images, np.ndarray)
    assert isinstance(listed.train.images, Pictures)
    assert listed.train.images.shape == decoded.train.images.shape
    assert listed.train.sha256 == decoded.train.sha256
    np.testing.assert_array_equal(listed.train.as_float(slice(3, 6)), decoded.train.as_float(slice(3, 6)))
    (rest, held), (all_rest, all_held) = (hold_out(each.train, 5, seed=1) for each in (listed, decoded))
    assert isinstance(rest.images, Pictures)
    assert isinstance(held.images, np.ndarray)
    assert (rest.sha256, held.sha256) == (all_rest.sha256, all_held.sha256)


def test_each_process_on_a_machine_counts_where_all_of_them_decode_a_folder(tmp_path, monkeypatch):
    folder = picture_folder(tmp_path / "set")  # 16 pictures of 3 x 8 x 8
    monkeypatch.setattr("pipeline.data.sets.free_memory", lambda device: 4 * 16 * 3 * 8 * 8)
    kinds = [type(load_dataset(None, folder, sharing=processes).train.images) for processes in (1, 2, 3)]
    assert kinds == [np.ndarray, np.ndarray, Pictures]


@pytest.mark.parametrize("damage", ["missing", "no image", "another shape"])
def test_a_listed_picture_that_cannot_be_had_is_named(tmp_path, monkeypatch, damage):
    folder = picture_folder(tmp_path / "set")
    monkeypatch.setattr("pipeline.data.sets.free_memory", lambda device: 100)
    images = load_dataset(None, folder).train
    victim = folder / "train" / "dog" / "7.png"
    if damage == "missing":
        victim.unlink()
    elif damage == "no image":
        victim.write_bytes(b"P")
    else:
        Image.new("RGB", (9, 8)).save(victim)
    with pytest.raises(BadData, match=r"dog.7\.png"):
        np.asarray(images.images)


def test_folders_of_numbers_are_ordered_as_numbers_in_training_too(tmp_path):
    names = tuple(str(number) for number in range(12))
    dataset = load_dataset(None, picture_folder(tmp_path / "set", count=1, classes=names))
    assert dataset.classes == names
    for split in (dataset.train, dataset.test):
        assert split.images[:, 0, 0, 0].tolist() == split.labels.tolist() == list(range(12))


def test_folders_of_training_and_test_that_differ_are_refused_by_name(tmp_path):
    folder = picture_folder(tmp_path / "set")
    (folder / "test" / "cat").rename(folder / "test" / "cow")
    with pytest.raises(BadData, match=r"set/train has class folders that set/test lacks: cat"):
        load_dataset(None, folder)


def test_a_class_folder_that_came_later_does_not_move_a_trained_networks_classes(tmp_path):
    folder = picture_folder(tmp_path / "set", classes=("bee", "cat"))
    trained = load_dataset(None, folder)
    for split in ("train", "test"):
        (folder / split / "bee").rename(folder / split / "owl")
    moved = load_dataset(None, folder)
    assert moved.classes == ("cat", "owl")
    with pytest.raises(BadData, match="no class of the model is called owl"):
        moved.numbered(trained.classes)
    with pytest.raises(BadData, match="not the model's"):
        moved.test.check_fits((3, 8, 8), trained.classes)
    np.testing.assert_array_equal(moved.numbered(("owl", "cat")).test.labels, 1 - moved.test.labels)


def test_of_several_parts_beside_train_the_first_is_taken_in_one_order(tmp_path):
    folder = picture_folder(tmp_path / "set")
    for number, name in enumerate(("validation", "valid", "val", "test")):
        if name != "test":
            shutil.copytree(folder / "test", folder / name)
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((4 + number, 1, 8, 8), np.uint8), y=np.arange(4 + number) % 2)
    np.savez(tmp_path / "train.npz", x=np.zeros((9, 1, 8, 8), np.uint8), y=np.arange(9) % 2)
    for name in ("test", "val", "valid", "validation"):
        assert load_dataset(None, folder).test.name == f"set/{name}"
        assert load_dataset(None, tmp_path).test.name.endswith(f"/{name}")
        shutil.rmtree(folder / name)
        (tmp_path / f"{name}.npz").unlink()
    with pytest.raises(BadData, match="holds no data set") as caught:
        load_dataset(None, folder)
    assert "test/ or val/ or valid/ or validation/" in caught.value.hint


def mixed_folder(path):
    folder = picture_folder(path)
    Image.new("RGB", (30, 20), "red").save(folder / "train" / "dog" / "7.png")
    Image.new("RGB", (9, 14), "red").save(folder / "test" / "cat" / "7.png")
    return folder


def test_a_folder_of_mixed_sizes_is_trained_on_in_the_size_that_is_asked_for(tmp_path, monkeypatch):
    folder, size = mixed_folder(tmp_path / "set"), TypeAdapter(Size).validate_python(6)
    with pytest.raises(BadData, match="3 x 20 x 30") as caught:
        load_dataset(None, folder)
    assert "size = N under [data]" in caught.value.hint
    decoded = load_dataset(None, folder, preprocessing=size)
    assert decoded.train.images.shape == (16, 3, 6, 6)
    monkeypatch.setattr("pipeline.data.sets.free_memory", lambda device: 100)
    listed = load_dataset(None, folder, preprocessing=size)
    assert isinstance(listed.train.images, Pictures)
    assert listed.train.sha256 == decoded.train.sha256
    assert listed.test.sha256 == find_images(str(folder / "test"), preprocessing=size).sha256
