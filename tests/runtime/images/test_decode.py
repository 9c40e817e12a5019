"""One decoding for training and evaluation: a picture as a person sees it, in bytes, or refused by name."""

import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from runtime.errors import BadData
from runtime.images.decode import Pictures, decode
from runtime.images.find import find_images

RAMP = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
GREYS = COLOURS[..., 0]
ALPHA = COLOURS[..., 1]


def over_white(pixels, alpha):
    alpha = alpha[..., None] if pixels.ndim == 3 else alpha
    return np.rint(255 + (pixels.astype(float) - 255) * alpha / 255)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled_and_not_cut(tmp_path, name):
    Image.fromarray(RAMP).save(tmp_path / name)
    assert np.abs(decode(str(tmp_path / name))[0] - RAMP / 257).max() <= 0.5
    np.testing.assert_array_equal(decode(str(tmp_path / name), channels=3)[2], decode(str(tmp_path / name))[0])


def test_a_pgm_of_ten_bits_is_scaled_by_its_own_white(tmp_path):
    values = np.array([0, 1, 512, 1023], ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 1023\n" + values.tobytes())
    assert np.abs(decode(str(tmp_path / "a.pgm"))[0, 0] - values / 1023 * 255).max() <= 0.51


def test_sixteen_bits_a_colour_are_scaled_too(tmp_path):
    values = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], 2)
    (tmp_path / "a.ppm").write_bytes(b"P6 6 4 65535\n" + values.astype(">u2").tobytes())
    assert np.abs(decode(str(tmp_path / "a.ppm")).transpose(1, 2, 0) - values / 257).max() <= 1


MODES = {
    "1": (Image.fromarray(GREYS > 99), np.where(GREYS > 99, 255, 0)),
    "L": (Image.fromarray(GREYS), GREYS),
    "LA": (Image.merge("LA", [Image.fromarray(GREYS), Image.fromarray(ALPHA)]), over_white(GREYS, ALPHA)),
    "RGB": (Image.fromarray(COLOURS), COLOURS),
    "RGBA": (Image.fromarray(np.dstack([COLOURS, ALPHA])), over_white(COLOURS, ALPHA)),
    "P": (Image.fromarray(COLOURS).quantize(24), COLOURS),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_png_of_any_mode_is_what_a_person_sees(tmp_path, mode):
    image, expected = MODES[mode]
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    found = decode(str(tmp_path / "a.png"))
    assert found.dtype == np.uint8
    assert len(found) == (1 if expected.ndim == 2 else 3)
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert np.abs(found.astype(float) - expected).max() <= 1
    assert decode(str(tmp_path / "a.png"), channels=3).shape == (3, 4, 6)
    assert decode(str(tmp_path / "a.png"), channels=1).shape == (1, 4, 6)


def test_a_colour_that_is_called_transparent_is_white(tmp_path):
    Image.fromarray(np.array([[7, 9]], np.uint8)).save(tmp_path / "grey.png", transparency=7)
    assert decode(str(tmp_path / "grey.png")).tolist() == [[[255, 9]]]
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(tmp_path / "indexed.png", transparency=0)
    assert decode(str(tmp_path / "indexed.png"))[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]
    indexed.save(tmp_path / "indexed.gif", transparency=0)
    assert decode(str(tmp_path / "indexed.gif"))[:, 0, 0].tolist() == [255, 255, 255]


def test_cmyk_is_read_in_colour(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert decode(str(tmp_path / "a.tif"))[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [COLOURS, RAMP], ids=["8 bits", "16 bits"])
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, 1),
    }[orientation]
    found = decode(str(tmp_path / "a.png"))
    expected = upright.transpose(2, 0, 1) if upright.ndim == 3 else np.rint(upright[None] / 257)
    np.testing.assert_array_equal(found, expected)


REFUSED = {
    "float.tif": (Image.fromarray(np.ones((2, 2), np.float32)), {}, "mode F"),
    "int.tif": (Image.fromarray(np.ones((2, 2), np.int32)), {}, "mode I"),
    "lab.tif": (Image.new("LAB", (2, 2)), {}, "mode LAB"),
    "a.gif": (Image.new("RGB", (2, 2), "red"), {"append_images": [Image.new("RGB", (2, 2))]}, "2 frames"),
    "a.webp": (Image.new("RGB", (2, 2), "red"), {"append_images": [Image.new("RGB", (2, 2))]}, "2 frames"),
    "a.png": (Image.new("RGB", (2, 2), "red"), {"append_images": [Image.new("RGB", (2, 2))]}, "2 frames"),
    "a.tiff": (Image.new("RGB", (2, 2), "red"), {"append_images": [Image.new("RGB", (2, 2))]}, "2 frames"),
}


@pytest.mark.parametrize(("bits", "zero_is"), [(12, "black"), (16, "white")])
def test_a_tiff_whose_numbers_pillow_leaves_as_they_are_is_refused(tmp_path, bits, zero_is):
    """Pillow calls both 16 bits a pixel, black at 0."""
    width, height, photometric, data = 4, 2, int(zero_is == "black"), b"\xff" * bits
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 110, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + data)
    with pytest.raises(BadData, match=r"a\.tif.*which does not say what number is white"):
        decode(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_plain_meaning_is_refused_by_name(tmp_path, name):
    image, options, words = REFUSED[name]
    image.save(tmp_path / name, **options, **({"save_all": True} if options else {}))
    with pytest.raises(BadData, match=rf"{name}.*{words}") as caught:
        decode(str(tmp_path / name))
    assert caught.value.hint


def test_a_cameras_jpeg_with_a_preview_behind_the_picture_is_the_picture(tmp_path):
    Image.new("RGB", (8, 8), "red").save(
        tmp_path / "a.mpo", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]
    )
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert (decode(str(tmp_path / "a.jpg"))[:, 0, 0] > 200).tolist() == [True, False, False]


@pytest.mark.parametrize("keep", [4, 20, 60, 120])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
def test_a_damaged_picture_is_named_and_nothing_else_is_said(tmp_path, suffix, keep, recwarn):
    Image.fromarray(np.tile(COLOURS, (20, 20, 1))).save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[:keep])
    with pytest.raises(BadData, match="cannot be read"):
        decode(str(tmp_path / f"a.{suffix}"))
    assert not recwarn.list


def test_a_picture_too_large_to_be_one_is_refused_and_a_large_one_read_without_a_word(tmp_path, monkeypatch):
    Image.fromarray(GREYS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(str(tmp_path / "a.png"))[0], GREYS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(BadData, match=r"a\.png cannot be read as an image"):
        decode(str(tmp_path / "a.png"))


def test_what_file_managers_leave_is_not_seen_and_other_files_are_named(tmp_path, capsys):
    for name in ("ant", "bee", ".git"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for name in ("ant", "bee"):
        Image.fromarray(GREYS).save(tmp_path / "set" / name / "0.PNG")
    for name in (".DS_Store", "ant/.DS_Store", "ant/._0.png", "bee/Thumbs.db", "bee/desktop.ini"):
        (tmp_path / "set" / name).write_bytes(b"\0")
    assert find_images(str(tmp_path / "set")).classes == ("ant", "bee")
    assert "left out" not in capsys.readouterr().err
    (tmp_path / "set" / "ant" / "more.png").mkdir()
    (tmp_path / "set" / "ant" / "0.heic").write_bytes(b"")
    Image.fromarray(GREYS).save(tmp_path / "set" / "stray.png")
    assert len(find_images(str(tmp_path / "set"))) == 2
    said = "left out, because they are no pictures of a class: ant/0.heic, ant/more.png, stray.png"
    assert said in capsys.readouterr().err


def test_a_coloured_picture_among_grey_ones_is_not_turned_grey_without_a_word(tmp_path):
    Image.fromarray(GREYS).save(tmp_path / "0.png")
    Image.fromarray(COLOURS).save(tmp_path / "1.png")
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    with pytest.raises(BadData, match=r"1\.png is 3 x 4 x 6, the images before it are 1 x 4 x 6") as caught:
        np.asarray(Pictures(files))
    assert "grey" in caught.value.hint
    assert np.asarray(Pictures(files, 1)).shape == (2, 1, 4, 6)
    assert np.asarray(Pictures(files[::-1])).shape == (2, 3, 4, 6)
