"""Sets to train on: by name, from .npz files, and held out."""

import hashlib
import pickle
from importlib.metadata import entry_points

import numpy as np
import pytest
import scipy.io
import torch
from pydantic import TypeAdapter
from torchvision import datasets

from pipeline.data.sets import KnownSet, hold_out, load_dataset
from pipeline.memory import free_memory
from runtime.errors import BadData
from runtime.images.find import DATASETS_GROUP, find_images
from runtime.images.image_set import ImageSet
from runtime.images.preprocessing import Size


def image_set(count=20, channels=1, size=8):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, channels, size, size), np.uint8)
    return ImageSet("set", images, np.arange(count) % 4, np.arange(count))


def one_class(images):
    return ImageSet(images.name, images.images, np.zeros_like(images.labels), images.ids)


def test_two_npz_files_are_a_data_set(tmp_path):
    images = image_set()
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=images.images, y=images.labels)
    dataset = load_dataset(None, tmp_path)
    assert dataset.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(dataset.test.images, images.images)


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (image_set(channels=1), image_set(channels=3), "3 x 8 x 8"),
        (image_set(size=8), image_set(size=9), "1 x 9 x 9"),
        (one_class(image_set()), one_class(image_set()), "1 class"),
    ],
)
def test_splits_that_do_not_fit_each_other_are_refused_before_training(tmp_path, train, test, says):
    for split, images in (("train", train), ("test", test)):
        np.savez(tmp_path / f"{split}.npz", x=images.images, y=images.labels)
    with pytest.raises(BadData, match=says):
        load_dataset(None, tmp_path)


def test_a_missing_data_set_says_where_it_looked(tmp_path):
    with pytest.raises(BadData, match=str(tmp_path)):
        load_dataset(None, tmp_path)
    with pytest.raises(BadData) as error:
        load_dataset("nonsense", None)
    assert error.value.hint is not None
    assert all(name in error.value.hint for name in ("fashion-mini", "cifar10", "svhn"))


def test_a_torchvision_set_that_cannot_be_had_says_where_it_looked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="file"):
        load_dataset("cifar10", None, tmp_path / "file")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar100_files(tmp_path, monkeypatch):
    """Files in the layout of CIFAR-100, 12 and 6 images; torchvision is told their digests."""
    folder, random = tmp_path / "cifar-100-python", np.random.default_rng(0)
    folder.mkdir()
    written = {}
    for split, count in (("train", 12), ("test", 6)):
        pixels = random.integers(0, 256, (count, 3 * 32 * 32), np.uint8)
        labels = [int(label) for label in np.arange(count) * 9]
        (folder / split).write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}))
        written[split] = (pixels.reshape(-1, 3, 32, 32), labels)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {label}" for label in range(100)]}))
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5(folder / "test")]])
    meta = datasets.CIFAR100.meta | {"md5": md5(folder / "meta")}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    return written


def test_cifar100_is_known_by_name_to_recipes_and_to_verify(cifar100_files, tmp_path):
    dataset = load_dataset("cifar100", None, tmp_path)
    assert len(dataset.classes) == 100
    for split in ("train", "test"):
        images, (pixels, labels) = getattr(dataset, split), cifar100_files[split]
        np.testing.assert_array_equal(images.images, pixels)
        assert images.labels.tolist() == labels
    assert find_images("cifar100", root=tmp_path).sha256 == dataset.test.sha256


def test_svhn_is_known_by_name_to_recipes_and_to_verify(tmp_path, monkeypatch):
    random, written = np.random.default_rng(0), {}
    for split, count in (("train", 11), ("test", 7)):
        pixels, digits = random.integers(0, 256, (count, 3, 32, 32), np.uint8), np.arange(count) % 10
        labels = np.where(digits == 0, 10, digits)[:, None]  # as the file has it: ten stands for the digit 0
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels.transpose(2, 3, 1, 0), "y": labels.astype(np.uint8)})
        monkeypatch.setitem(datasets.SVHN.split_list, split, ["none", path.name, md5(path)])
        written[split] = (pixels, digits)
    dataset = load_dataset("svhn", None, tmp_path)
    assert dataset.classes == tuple("0123456789")
    for split in ("train", "test"):
        images, (pixels, digits) = getattr(dataset, split), written[split]
        np.testing.assert_array_equal(images.images, pixels)
        np.testing.assert_array_equal(images.labels, digits)
    assert find_images("svhn", root=tmp_path).sha256 == dataset.test.sha256


def test_every_data_set_of_recipes_is_also_one_of_the_command_line():
    assert {entry.name for entry in entry_points(group=DATASETS_GROUP)} == {
        "fashion-mini", "fashion-mnist", "cifar10", "cifar100", "svhn",
    }  # fmt: skip
    assert all(isinstance(entry.load(), KnownSet) for entry in entry_points(group=DATASETS_GROUP))


@pytest.mark.parametrize(
    ("limit", "used", "available", "free"),
    [("max", 0, 1000, 1000), (3000, 1000, 5000, 2000), (9000, 0, 5000, 5000), (10, 20, 5000, 0), (None, 0, 7000, 7000)],
)
def test_free_memory_is_the_machines_or_its_containers(limit, used, available, free, tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available} kB\n")
    if limit is not None:
        for name, value in (("max", limit), ("current", used)):
            (tmp_path / f"memory.{name}").write_text(f"{value if value == 'max' else value * 1024}\n")
    monkeypatch.setattr("pipeline.memory.MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr("pipeline.memory.CGROUP", tmp_path)
    assert free_memory(torch.device("cpu")) == free * 1024
    (tmp_path / "meminfo").unlink()
    assert free_memory(torch.device("cpu")) >= 0


def test_the_hold_out_is_disjoint_and_repeated_by_its_seed():
    images = image_set()
    rest, held = hold_out(images, 5, seed=1)
    assert sorted([*rest.ids, *held.ids]) == list(range(20))
    assert hold_out(images, 5, seed=1)[1].ids.tolist() == held.ids.tolist()
    assert hold_out(images, 5, seed=2)[1].ids.tolist() != held.ids.tolist()
    for count in (0, 20, 21):
        with pytest.raises(BadData, match="hold out"):
            hold_out(images, count, seed=1)


def test_a_known_set_brings_the_names_of_its_classes():
    images = find_images("fashion-mini")
    assert images.classes is not None
    assert images.classes[:2] == ("T-shirt/top", "Trouser")
    assert images.rows(slice(3)).classes == images.first(3).classes == images.classes


def test_a_set_known_to_verify_alone_is_none_to_train_on(monkeypatch):
    class Entry:
        name = "foreign"

        def load(self):
            return lambda root: None

    monkeypatch.setattr("pipeline.data.sets.entry_points", lambda group: [Entry()])
    with pytest.raises(BadData, match="there is no data set named 'foreign' to train on"):
        load_dataset("foreign", None)


def test_a_training_file_that_holds_both_parts_trains_on_its_training_images(tmp_path):
    arrays = {"x_train": np.zeros((6, 8, 8), np.uint8), "y_train": np.arange(6) % 2,
              "x_test": np.full((4, 8, 8), 9, np.uint8), "y_test": np.arange(4) % 2}  # fmt: skip
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", **arrays)
    dataset = load_dataset(None, tmp_path)
    assert (dataset.train.images.shape, dataset.test.images.shape) == ((6, 1, 8, 8), (4, 1, 8, 8))


def test_arrays_have_a_size_of_their_own(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=image_set().images, y=image_set().labels)
    with pytest.raises(BadData, match="size applies to the pictures of a folder"):
        load_dataset(None, tmp_path, preprocessing=TypeAdapter(Size).validate_python(6))
