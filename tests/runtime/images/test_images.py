"""Image sets: from an .npz, by a known name, and what does not fit."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import BadData, MissingEnvironment, UsageFault
from runtime.images import find as module
from runtime.images.find import find_images
from runtime.images.image_set import ImageSet
from runtime.images.npz import read_npz
from tests.tiny import npz

X = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_an_npz_is_kept_as_it_is_stored_and_read_as_float_when_asked(tmp_path):
    np.savez(tmp_path / "set.npz", x=X, y=Y.astype(np.uint8))
    images = read_npz(tmp_path / "set.npz")
    assert (images.name, len(images), images.images.dtype, images.labels.dtype) == ("set", 6, np.uint8, np.int64)
    chosen = images.as_float(np.array([4, 1]))
    assert chosen.dtype == np.float32
    np.testing.assert_array_equal(chosen, X[[4, 1]].astype(np.float32) / np.float32(255))


def test_channels_last_is_recognised_where_it_is_plain_and_by_request():
    last = X.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(read_npz(npz(x=last, y=Y)).images, X)
    np.testing.assert_array_equal(read_npz(npz(x=last, y=Y), layout="nhwc").images, X)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (2, 4, 4, 4)])
def test_a_layout_that_is_not_plain_is_asked_for(shape):
    data = npz(x=np.zeros(shape, np.uint8), y=np.zeros(2, int))
    with pytest.raises(BadData, match="unclear which axis") as caught:
        read_npz(data)
    assert "--layout" in caught.value.hint
    assert read_npz(data, layout="nchw").images.shape == shape


def floats(value):
    x = np.full((6, 3, 4, 5), 0.5, np.float32)
    x[4, 1, 2, 3] = value
    return x


BAD = {
    "NaN": ({"x": floats(np.nan), "y": Y}, "image 4"),
    "infinity": ({"x": floats(np.inf), "y": Y}, "image 4"),
    "above one": ({"x": floats(1.01), "y": Y}, "image 4"),
    "below zero": ({"x": floats(-0.01), "y": Y}, "image 4"),
    "float64 above one": ({"x": floats(1.01).astype(np.float64), "y": Y}, "image 4"),
    "long double": ({"x": floats(0.5).astype(np.longdouble), "y": Y}, "images are"),
    "uint16": ({"x": X.astype(np.uint16), "y": Y}, "images are uint16"),
    "two axes": ({"x": X[:, 0, 0], "y": Y}, "shape"),
    "no image": ({"x": X[:0], "y": Y[:0]}, "shape"),
    "too few labels": ({"x": X, "y": Y[:5]}, "labels"),
    "fractional labels": ({"x": X, "y": Y / 2}, "labels"),
    "negative label": ({"x": X, "y": Y - 1}, "labels"),
    "label beyond int64": ({"x": X, "y": np.full(6, 2**63, np.uint64)}, "labels have 9223372036854775808 at index 0"),
    "label beyond any class": ({"x": X, "y": Y + 2**31}, "labels have 2147483650 at index 2"),
    "id beyond int64": ({"images": X, "labels": Y, "ids": np.full(6, 2**63, np.uint64)}, "ids have"),
    "no labels": ({"x": X}, "holds x: y is missing"),
    "nothing": ({}, "x and y are missing"),
    "pickle": ({"x": np.array([{}] * 6, object), "y": Y}, "cannot be read"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD)
def test_a_bad_npz_is_refused_with_what_is_wrong(arrays, message):
    with pytest.raises(BadData, match=message) as caught:
        read_npz(npz(**arrays), name="set")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("end", [b"", npz(x=X, y=Y)], ids=["alone", "before an archive"])
def test_a_file_of_another_kind_is_called_that_and_no_pickle(tmp_path, end):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch" + end)
    with pytest.raises(BadData, match=r"cannot be read as \.npz: it is no zip archive"):
        read_npz(tmp_path / "model.onnx")


def damaged():
    whole = npz(x=X, y=Y)
    array = npz(x=X)
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    return {"empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2], "changed": bytes(flipped),
            "npy": array[array.index(b"\x93NUMPY"):]}  # fmt: skip


@pytest.mark.parametrize("data", damaged().values(), ids=damaged())
def test_a_damaged_npz_is_refused_from_bytes_and_from_disk(tmp_path, data):
    with pytest.raises(BadData, match="cannot be read"):
        read_npz(data)
    (tmp_path / "set.npz").write_bytes(data)
    with pytest.raises(BadData, match="cannot be read"):
        read_npz(tmp_path / "set.npz")


DAMAGED_ARRAYS = {
    "a header that is no Python": b"\x93NUMPY\x01\x00\x10\x00{'descr':('<i8'\x00)",
    "no array at all": b"text",
    "a header that asks for an exabyte": b"\x93NUMPY\x01\x00\x4e\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1152921504606846976,), }".ljust(77) + b"\n",
}  # fmt: skip


@pytest.mark.parametrize("array", DAMAGED_ARRAYS.values(), ids=DAMAGED_ARRAYS)
def test_a_whole_archive_of_damaged_arrays_is_refused(array):
    buffer = io.BytesIO(npz(y=Y))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("x.npy", array)
    with pytest.raises(BadData, match=r"cannot be read as \.npz"):
        read_npz(buffer.getvalue())


def test_labels_beyond_the_classes_and_other_shapes_do_not_fit():
    images = read_npz(npz(x=X, y=Y))
    images.check_fits((3, 4, 5), ("a", "b", "c"))
    with pytest.raises(BadData, match="image 2 has label 2, but there are 2 classes"):
        images.check_fits((3, 4, 5), ("a", "b"))
    with pytest.raises(BadData, match="the model takes 1 x 4 x 5"):
        images.check_fits((1, 4, 5), ("a", "b", "c"))


def test_more_images_than_there_are_is_refused():
    images = read_npz(npz(x=X, y=Y))
    assert len(images.first(None)) == 6
    np.testing.assert_array_equal(images.first(2).images, X[:2])
    with pytest.raises(BadData, match="7 images are asked for"):
        images.first(7)


def test_the_digest_is_of_the_content_and_of_nothing_else():
    base = ImageSet("a", X, Y, np.arange(6))
    assert base.sha256 == ImageSet("b", X.copy(), Y.astype(np.int32), np.arange(6) + 9).sha256
    assert base.sha256 != ImageSet("a", X[::-1], Y, np.arange(6)).sha256
    assert base.sha256 != ImageSet("a", X, Y[::-1], np.arange(6)).sha256
    assert base.sha256 != ImageSet("a", X.reshape(6, 3, 5, 4), Y, np.arange(6)).sha256


class Entry:
    name, extras = "known", ["train"]

    def __init__(self, load):
        self.load = load


def test_a_known_name_is_asked_of_its_entry_point(monkeypatch):
    images, asked = ImageSet("known/test", X, Y, np.arange(6)), []
    monkeypatch.setattr(
        module, "entry_points", lambda group: [Entry(lambda: lambda root: asked.append(root) or images)]
    )
    assert find_images("known") is images
    assert find_images("known", root=Path("elsewhere")) is images
    assert asked == [Path("data"), Path("elsewhere")]


def test_a_known_name_whose_extra_is_missing_names_the_extra(monkeypatch):
    def load():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(module, "entry_points", lambda group: [Entry(load)])
    with pytest.raises(MissingEnvironment) as caught:
        find_images("known")
    assert "pip install '.[train]'" in caught.value.hint


def test_a_known_name_whose_extra_is_broken_says_so(monkeypatch):
    def load():
        raise ImportError("libcudart.so: cannot open shared object file", name="torch._C")

    monkeypatch.setattr(module, "entry_points", lambda group: [Entry(load)])
    with pytest.raises(MissingEnvironment, match="libcudart"):
        find_images("known")


@pytest.mark.parametrize("data", ["nowhere.npz", ""])
def test_a_path_that_does_not_exist_is_a_usage_error(data):
    with pytest.raises(UsageFault):
        find_images(data)
