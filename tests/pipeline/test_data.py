import gzip

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import make_fashion_mini
from pipeline.data import DATASETS, EMBEDDED, Batches, augment, hold_out, load_dataset, load_fashion_mini
from runtime.errors import BadData
from runtime.images import ImageSet


def image_set(count=20, channels=1, size=8):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, channels, size, size), np.uint8)
    return ImageSet("set", images, np.arange(count) % 4, np.arange(count))


def one_class(images):
    return ImageSet(images.name, images.images, np.zeros_like(images.labels), images.ids)


def test_fashion_mini_is_balanced_small_and_licensed():
    dataset = load_fashion_mini(EMBEDDED)
    assert dataset.train.images.shape == (10_000, 1, 28, 28)
    assert dataset.test.images.shape == (2_000, 1, 28, 28)
    assert set(np.bincount(dataset.train.labels)) == {1000}
    assert set(np.bincount(dataset.test.labels)) == {200}
    assert (EMBEDDED / "fashion-mini.npz").stat().st_size <= 6e6
    assert "MIT License" in (EMBEDDED / "fashion-mini.LICENSE").read_text()


def test_no_training_image_of_fashion_mini_is_also_a_test_image():
    dataset = load_fashion_mini(EMBEDDED)
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


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_an_image_folder_is_a_data_set(tmp_path, test_name):
    for split in ("train", test_name):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 6), (label * 255, 0, 0)).save(tmp_path / split / name / "0.png")
    dataset = load_dataset(None, tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.images.shape == (2, 3, 6, 8)
    assert dataset.test.labels.tolist() == [0, 1]


def test_two_npz_files_are_a_data_set(tmp_path):
    images = image_set()
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=images.images, y=images.labels)
    dataset = load_dataset(None, tmp_path)
    assert dataset.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(dataset.test.images, images.images)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_a_damaged_or_missing_embedded_set_is_refused_and_says_where_it_looked(tmp_path, monkeypatch, damage):
    (tmp_path / "fashion-mini.npz").write_bytes((EMBEDDED / "fashion-mini.npz").read_bytes())
    monkeypatch.setattr("pipeline.data.EMBEDDED", tmp_path)
    load_fashion_mini(tmp_path)
    damage(tmp_path / "fashion-mini.npz")
    with pytest.raises(BadData, match=str(tmp_path)):
        load_fashion_mini(tmp_path)


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
    assert all(name in error.value.hint for name in DATASETS)


def test_a_torchvision_set_that_cannot_be_had_says_where_it_looked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="file"):
        load_dataset("cifar10", None, tmp_path / "file")


def test_the_hold_out_is_disjoint_and_repeated_by_its_seed():
    images = image_set()
    rest, held = hold_out(images, 5, seed=1)
    assert sorted([*rest.ids, *held.ids]) == list(range(20))
    assert hold_out(images, 5, seed=1)[1].ids.tolist() == held.ids.tolist()
    assert hold_out(images, 5, seed=2)[1].ids.tolist() != held.ids.tolist()
    for count in (0, 20, 21):
        with pytest.raises(BadData, match="hold out"):
            hold_out(images, count, seed=1)


def batches(**changes):
    arguments = {"crop": 2, "flip": True, "seed": 3, "device": torch.device("cpu"), **changes}
    return Batches(image_set(), 6, **arguments)


def test_an_epoch_shows_whole_batches_of_distinct_images():
    plain = batches(crop=0, flip=False)
    seen = torch.cat([images for images, _ in plain.epoch(0)])
    assert len(plain) == 3
    assert seen.shape == (18, 1, 8, 8)
    assert seen.dtype == torch.float32
    known = {image.tobytes() for image in image_set().images}
    shown = {(image * 255).round().to(torch.uint8).numpy().tobytes() for image in seen}
    assert len(shown) == 18
    assert shown <= known


def test_epochs_differ_from_one_another_and_are_repeated_by_the_seed():
    first, again = ([images for images, _ in batches().epoch(0)] for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    other = next(iter(batches().epoch(1)))[0]
    assert not torch.equal(first[0], other)


def test_labels_stay_with_their_images():
    images = image_set()
    images.images[:] = images.labels[:, None, None, None]
    loader = Batches(images, 6, crop=0, flip=True, seed=0, device=torch.device("cpu"))
    for shown, labels in loader.epoch(0):
        assert torch.equal((shown * 255).round().long()[:, 0, 0, 0], labels)


@settings(deadline=None, max_examples=50)
@given(crop=st.integers(0, 4), flip=st.booleans(), seed=st.integers(0, 99), channels=st.integers(1, 3))
def test_augmented_images_are_shifts_and_mirrors_of_their_originals(crop, flip, seed, channels):
    images = torch.from_numpy(image_set(6, channels, 5).images)
    shown = augment(images, crop, flip, torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(images, (crop,) * 4).float() / 255
    for image, original in zip(shown, padded, strict=True):
        windows = [
            window if not mirrored else window.flip(2)
            for down in range(2 * crop + 1)
            for right in range(2 * crop + 1)
            for window in [original[:, down : down + 5, right : right + 5]]
            for mirrored in ((False, True) if flip else (False,))
        ]
        assert any(torch.equal(image, window) for window in windows)


def test_augmentation_mirrors_about_half_and_uses_every_shift():
    images = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 255
    images[:, :, 2, 0] = 128
    shown = augment(images, 1, True, torch.Generator().manual_seed(0))
    place = shown.eq(1.0).flatten(1).float().argmax(dim=1)
    assert place.unique().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    unshifted = shown[place == 12]
    mirrored = unshifted[:, 0, 2, 4].gt(0).float().mean()
    assert 0.35 < mirrored < 0.65
    assert len(unshifted) > 100
