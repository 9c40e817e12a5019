"""An .npz as people have it: under the usual keys, one pair alone, with labels of the usual shapes."""

import io

import numpy as np
import pytest

from runtime.errors import BadData
from runtime.images import npz as module
from runtime.images.npz import KEYS, KEYS_OF, read_npz
from tests.tiny import npz

X = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])
OTHER = np.zeros_like(X)
PAIRS = [*KEYS, *((images.format("test"), labels.format("test")) for images, labels in KEYS_OF)]


@pytest.mark.parametrize("keys", PAIRS, ids="/".join)
def test_the_usual_keys_are_read(keys):
    images = read_npz(npz(**dict(zip(keys, (X, Y), strict=True))))
    np.testing.assert_array_equal(images.images, X)
    assert images.labels.tolist() == Y.tolist()


def test_arrays_saved_without_names_are_images_and_labels_in_this_order():
    buffer = io.BytesIO()
    np.savez(buffer, X, Y)
    np.testing.assert_array_equal(read_npz(buffer.getvalue()).images, X)
    buffer = io.BytesIO()
    np.savez(buffer, Y, X)
    with pytest.raises(BadData, match="shape"):
        read_npz(buffer.getvalue())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("keys", KEYS_OF, ids="/".join)
def test_of_a_file_with_both_parts_the_one_that_is_asked_for_is_read(keys, split):
    arrays = {key.format(part): value for part, x in (("train", X), ("test", OTHER))
              for key, value in zip(keys, (x, Y), strict=True)}  # fmt: skip
    images = read_npz(npz(**arrays), split=split)
    np.testing.assert_array_equal(images.images, X if split == "train" else OTHER)


AMBIGUOUS = {
    "two pairs": {"x": X, "y": Y, "images": OTHER, "labels": Y},
    "two cases of letters": {"X": X, "y": Y, "Y": Y[::-1]},
    "a whole set and a part of one": {"x": X, "y": Y, "x_test": OTHER, "y_test": Y},
    "two lists of labels": {"data": X, "labels": Y, "target": Y[::-1]},
}


@pytest.mark.parametrize("arrays", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_not_plain_is_refused_and_names_the_keys_found(arrays):
    with pytest.raises(BadData, match="unclear which are the images") as caught:
        read_npz(npz(**arrays), name="set")
    assert all(key in caught.value.message for key in arrays)


@pytest.mark.parametrize("arrays", [{"x_train": X, "y_train": Y}, {"pixels": X, "classes": Y}, {"x": X, "labels": Y}])
def test_keys_that_are_no_pair_are_named(arrays):
    with pytest.raises(BadData, match=f"holds {', '.join(arrays)}: [xy]") as caught:
        read_npz(npz(**arrays))
    assert "x_test/y_test" in caught.value.hint


HOT = np.eye(3)[Y]
LABELS = {"a column": Y[:, None], "one-hot": HOT.astype(np.uint8), "one-hot floats": HOT, "one-hot bools": HOT == 1}


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels_in_a_column_or_one_hot_are_numbers_of_classes(y):
    assert read_npz(npz(x=X, y=y)).labels.tolist() == Y.tolist()


SOFT = np.where(np.arange(6)[:, None] == 4, [0.9, 0.1, 0], HOT)
BAD_LABELS = {
    "soft": SOFT,
    "two ones": np.where(np.arange(6)[:, None] == 4, 1, HOT),
    "no one": np.where(np.arange(6)[:, None] == 4, 0, HOT),
    "minus one": np.where((np.arange(6)[:, None] == 4) & (HOT == 0), -1, HOT).astype(int),
    "probabilities": np.full((6, 3), 1 / 3),
}


@pytest.mark.parametrize("y", BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_only_look_one_hot_are_refused(y):
    with pytest.raises(BadData, match=r"labels have shape \(6, 3\), and row [04] is not one 1 among zeros"):
        read_npz(npz(x=X, y=y))


@pytest.mark.parametrize("y", [Y[:, None] / 2, Y.astype(float), Y[:, None, None], Y.astype(str), HOT[:5]])
def test_other_labels_are_refused(y):
    with pytest.raises(BadData, match="labels"):
        read_npz(npz(x=X, y=y))


@pytest.mark.parametrize("large", [0, 2**21])
@pytest.mark.parametrize("kind", ["<f8", ">f8", ">f4", "<f2"])
def test_floats_of_any_size_are_read_as_float32(monkeypatch, kind, large):
    monkeypatch.setattr(module, "LARGE", large)
    values = np.random.default_rng(0).random((300, 3, 16, 16)).astype(kind)
    images = read_npz(npz(x=values, y=np.zeros(300, int)))
    assert images.images.dtype == np.float32
    np.testing.assert_array_equal(images.as_float(slice(None)), values.astype(np.float32))


@pytest.mark.parametrize("large", [0, 2**21])
def test_images_without_an_axis_of_channels_are_grey(monkeypatch, large):
    monkeypatch.setattr(module, "LARGE", large)
    images = read_npz(npz(x_test=X[:, 0], y_test=Y))
    np.testing.assert_array_equal(np.asarray(images.images), X[:, :1])


HINTS = {
    "floats of 0 to 255": (X.astype(np.float64), "divide them by 255"),
    "normalised": (X / 100.0 - 1, "--mean and --std"),
    "uint16": (X.astype(np.uint16), "x / 65535"),
    "int64": (X.astype(np.int64), "uint8"),
    "bool": (X > 99, "uint8"),
}


@pytest.mark.parametrize(("x", "words"), HINTS.values(), ids=HINTS)
def test_images_whose_white_is_not_known_are_refused_with_what_to_do(x, words):
    with pytest.raises(BadData, match="image") as caught:
        read_npz(npz(x=x, y=Y))
    assert words in caught.value.hint
