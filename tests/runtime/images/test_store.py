import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadData
from runtime.images import find, npz
from runtime.images.find import find_images
from runtime.images.image_set import ImageSet
from runtime.images.npz import read_npz


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).integers(0, 256, (50, 3, 5, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch):
    monkeypatch.setattr(npz, "LARGE", 0)


def stored(path, images, **options):
    np.savez_compressed(path, x=images, y=np.zeros(len(images), int))
    found = read_npz(path, **options)
    assert isinstance(found.images, np.memmap)
    return found


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("stored") / "x.npz"
    np.savez_compressed(path, x=values, y=np.zeros(len(values), int))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npz, "LARGE", 0)
        return read_npz(path).images


@given(
    index=st.one_of(
        st.slices(50), st.lists(st.integers(-50, 49)).map(lambda rows: np.asarray(rows, int)), st.integers(-50, 49)
    )
)
def test_images_on_disk_are_read_by_rows_as_an_array_is(on_disk, values, index):
    np.testing.assert_array_equal(on_disk[index], values[index])
    assert on_disk[index].dtype == np.uint8


def test_no_one_changes_images_on_disk(on_disk):
    with pytest.raises(ValueError, match="read-only"):
        on_disk[0] = 0


def test_images_on_disk_are_those_in_memory(tmp_path, values, monkeypatch):
    disk = stored(tmp_path / "a.npz", values)
    monkeypatch.setattr(npz, "LARGE", 2**30)
    memory = read_npz(tmp_path / "a.npz")
    assert isinstance(memory.images, np.ndarray)
    assert disk.sha256 == memory.sha256
    np.testing.assert_array_equal(disk.as_float(slice(3, 9)), memory.as_float(slice(3, 9)))
    np.testing.assert_array_equal(np.asarray(disk.images), values)


def test_the_first_images_on_disk_stay_there(tmp_path, values):
    first = stored(tmp_path / "a.npz", values).first(7)  # the set that it is a part of goes
    assert isinstance(first.images, np.memmap)
    np.testing.assert_array_equal(first.images, values[:7])
    np.testing.assert_array_equal(first.images[-1], values[6])
    assert first.sha256 == ImageSet("", values[:7], first.labels, first.ids).sha256


def test_a_large_folder_is_decoded_to_disk_and_is_the_same_set(tmp_path, values, monkeypatch):
    from PIL import Image

    for row, image in enumerate(values):
        (tmp_path / str(row % 2)).mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / str(row % 2) / f"{row:02}.png")
    memory = find_images(str(tmp_path))
    monkeypatch.setattr(find, "LARGE", 0)
    disk = find_images(str(tmp_path))
    assert isinstance(memory.images, np.ndarray)
    assert isinstance(disk.images, np.memmap)
    np.testing.assert_array_equal(memory.images, values)
    assert disk.sha256 == memory.sha256


def test_an_npz_on_disk_is_never_in_memory_as_a_whole(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((40, 3, 256, 256), np.uint8), y=np.zeros(40, int))
    tracemalloc.start()
    try:
        read_npz(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 2


def test_channels_in_the_last_place_are_brought_forward(tmp_path, values):
    disk = stored(tmp_path / "a.npz", values.transpose(0, 2, 3, 1), layout="nhwc")
    assert disk.images.shape == values.shape
    np.testing.assert_array_equal(disk.images[10:20], values[10:20])
    assert disk.as_float(slice(10, 20)).flags.c_contiguous
    assert isinstance(disk.images, np.memmap)


def test_floats_on_disk_are_checked_as_in_memory(tmp_path):
    images = np.zeros((9, 1, 4, 4), np.float32)
    images[7, 0, 0, 0] = 1.5
    with pytest.raises(BadData, match="image 7 has values outside"):
        stored(tmp_path / "a.npz", images)


@pytest.mark.parametrize("spoil", [np.asfortranarray, lambda x: x.astype(object)], ids=["fortran", "pickled"])
def test_an_array_that_is_not_plain_is_refused(tmp_path, values, spoil):
    np.savez(tmp_path / "a.npz", x=spoil(values), y=np.zeros(50, int))
    with pytest.raises(BadData, match="plain array"):
        read_npz(tmp_path / "a.npz")


def test_an_array_that_is_cut_is_refused(tmp_path, values):
    import zipfile

    np.savez(tmp_path / "a.npz", x=values, y=np.zeros(50, int))
    with zipfile.ZipFile(tmp_path / "a.npz") as whole, zipfile.ZipFile(tmp_path / "b.npz", "w") as cut:
        for name in whole.namelist():
            data = whole.read(name)
            cut.writestr(name, data[:-5] if name == "x.npy" else data)
    with pytest.raises(BadData, match="length"):
        read_npz(tmp_path / "b.npz")
