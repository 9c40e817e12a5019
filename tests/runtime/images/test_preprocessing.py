"""Pictures of any size, resized and cropped: to the byte as torchvision's evaluation does it."""

import itertools

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torchvision.transforms import CenterCrop, Compose, Resize

from runtime.errors import BadData
from runtime.images.decode import Pictures, decode
from runtime.images.find import find_images
from runtime.images.preprocessing import Preprocessing, Size

SIZE = TypeAdapter(Size)
SHAPES = [(37, 53), (53, 37), (224, 300), (64, 64), (10, 90), (101, 33), (500, 375), (8, 8)]


def picture(path, height, width, channels=3):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)
    return str(path)


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("size", ["64", "33", "256:224", "40:33", "70:32x64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_what_torchvision_makes_of_it_to_the_byte(tmp_path, height, width, size, channels):
    path, preprocessing = picture(tmp_path / "a.png", height, width, channels), SIZE.validate_python(size)
    theirs = Compose([Resize(preprocessing.resize[0], antialias=True), CenterCrop(preprocessing.crop)])
    with Image.open(path) as image:
        expected = np.asarray(theirs(image)).reshape(*preprocessing.crop, channels)
    np.testing.assert_array_equal(decode(path, None, preprocessing), expected.transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (96, 33), (100, 100)])
def test_a_size_that_is_no_square_is_covered_and_not_distorted(tmp_path, height, width, rows, columns):
    path, preprocessing = picture(tmp_path / "a.png", height, width), SIZE.validate_python(f"{rows}x{columns}")
    wide, high = preprocessing.resized((width, height))
    assert (high == rows and wide >= columns) or (wide == columns and high >= rows)
    assert abs(wide - high * width / height) < 1 or abs(high - wide * height / width) < 1
    with Image.open(path) as image:
        expected = np.asarray(Compose([Resize((high, wide)), CenterCrop((rows, columns))])(image))
    np.testing.assert_array_equal(decode(path, 3, preprocessing), expected.transpose(2, 0, 1))


def test_a_picture_of_the_size_is_left_as_it_is(tmp_path):
    path = picture(tmp_path / "a.png", 20, 30)
    np.testing.assert_array_equal(decode(path, 3, SIZE.validate_python("20x30")), decode(path))


def test_a_picture_is_turned_before_it_is_cropped(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, :10] = 255  # lies at the top of the upright picture
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = decode(str(tmp_path / "a.png"), None, SIZE.validate_python("30x10"))
    assert (upright[:, :10] == 255).all()
    assert not upright[:, 10:].any()


@pytest.mark.parametrize("text", ["224", "96x128", "256:224", "256x256:96x128", 224])
def test_a_size_is_written_as_it_is_read_and_kept_whole(text):
    size = SIZE.validate_python(text)
    assert SIZE.validate_python(str(size)) == SIZE.validate_python(SIZE.dump_python(size)) == size
    assert Preprocessing.model_validate_json(size.model_dump_json()) == size
    assert set(size.model_dump()) == {"resize", "crop", "interpolation"}


@pytest.mark.parametrize(
    "text", ["", "0", "-4", "x", "4x", "4x4x4", "1:2:3", "200:224", "96x128:100", True, 1.5, "99999"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValidationError):
        SIZE.validate_python(text)


def test_a_folder_of_mixed_sizes_needs_a_size_and_the_error_names_the_option(tmp_path):
    for name, (height, width) in zip(("ant", "bee"), itertools.islice(SHAPES, 2), strict=True):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "0.png", height, width)
    with pytest.raises(BadData, match=r"bee.0\.png is 3 x 53 x 37") as caught:
        find_images(str(tmp_path))
    assert "--size" in caught.value.hint
    images = find_images(str(tmp_path), preprocessing=SIZE.validate_python(32))
    assert images.images.shape == (2, 3, 32, 32)
    files = [tmp_path / name / "0.png" for name in ("ant", "bee")]
    listed = Pictures(files, None, SIZE.validate_python(32))
    assert listed.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(np.asarray(listed[1:]), images.images[1:])
