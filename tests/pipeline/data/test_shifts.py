"""What the shifts make of pictures whose every pixel is known; and that no augmentation waits for the device."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.augment import AUGMENTATIONS, augment
from pipeline.data.shifts import STRONGEST, below, cropshift

SIZE = 5


def pictures(count=6, channels=1, size=SIZE):
    return torch.randint(1, 256, (count, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


def numbered(count, height, width):
    """Pictures whose pixels say where they are: 1 to height x width, as floats up to 1 that stay exact."""
    return (1 + torch.arange(height * width)).view(1, 1, height, width).expand(count, -1, -1, -1).contiguous() / 4096


def augmented(kind, images, *, crop=4, flip=True, seed=0):
    draws = AUGMENTATIONS[kind].draw(len(images), crop, flip, torch.Generator().manual_seed(seed))
    return augment(kind, images, draws)


@settings(deadline=None, max_examples=50)
@given(crop=st.integers(0, 4), flip=st.booleans(), seed=st.integers(0, 99), channels=st.integers(1, 3))
def test_pad_crop_shows_shifts_and_mirrors_of_the_images(crop, flip, seed, channels):
    images = pictures(channels=channels)
    shown = augmented("pad-crop", images, crop=crop, flip=flip, seed=seed)
    padded = torch.nn.functional.pad(images, (crop,) * 4).float() / 255
    for image, original in zip(shown, padded, strict=True):
        windows = [
            window if not mirrored else window.flip(2)
            for down in range(2 * crop + 1)
            for right in range(2 * crop + 1)
            for window in [original[:, down : down + SIZE, right : right + SIZE]]
            for mirrored in ((False, True) if flip else (False,))
        ]
        assert any(torch.equal(image, window) for window in windows)


def test_pad_crop_mirrors_about_half_and_uses_every_shift():
    images = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 255
    images[:, :, 2, 0] = 128
    shown = augmented("pad-crop", images, crop=1)
    place = shown.eq(1.0).flatten(1).float().argmax(dim=1)
    assert place.unique().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    unshifted = shown[place == 12]
    mirrored = unshifted[:, 0, 2, 4].gt(0).float().mean()
    assert 0.35 < mirrored < 0.65
    assert len(unshifted) > 100


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 40), width=st.integers(1, 40), flip=st.booleans(), seed=st.integers(0, 99))
def test_cropshift_puts_one_window_of_the_image_down_on_black(height, width, flip, seed):
    for shown in augmented("cropshift", numbered(4, height, width), flip=flip, seed=seed)[:, 0]:
        filled = shown > 0
        rows, columns = filled.any(dim=1).nonzero()[:, 0], filled.any(dim=0).nonzero()[:, 0]
        window = shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (window > 0).all()  # a rectangle, and black around it
        places = (window * 4096).long() - 1
        across = places % width
        forward = (across.diff(dim=1) == 1).all()
        assert forward or (flip and (across.diff(dim=1) == -1).all())
        assert (places.diff(dim=0) == width).all()
        missing = height - len(rows) + width - len(columns)
        assert 0 <= missing <= min(STRONGEST, height - 1, width - 1)


def test_cropshift_of_no_strength_is_the_image_or_its_mirror():
    images = pictures(2, 3)
    draws = torch.tensor([[0.0, 0, 0.9, 0.9, 0.9, 0.9, 0.9], [1.0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]])
    plain, mirrored = cropshift(images, draws)
    assert torch.equal(plain, images[0])
    assert torch.equal(mirrored, images[1].flip(2))


def test_cropshift_of_known_numbers_is_the_window_they_name():
    # strength 7 of 0..10, of which 3 columns and so 4 rows go; source 2 down, 1 right; target 4 down, 0 right
    draws = torch.tensor([[0.0, 7.5 / 11, 3.5 / 8, 2.5 / 5, 4.5 / 5, 1.5 / 4, 0.5 / 4]])
    images = numbered(1, 32, 32)
    expected = torch.zeros_like(images)
    expected[:, :, 4:32, 0:29] = images[:, :, 2:30, 1:30]
    assert torch.equal(cropshift(images, draws), expected)


def test_cropshift_takes_every_strength_division_and_place_as_often_as_the_published_code():
    count = 40_000
    shown = augmented("cropshift", torch.ones(count, 1, 32, 32), flip=False)[:, 0] > 0
    rows, columns = shown.any(dim=2), shown.any(dim=1)
    fewer_rows, fewer_columns = 32 - rows.sum(dim=1), 32 - columns.sum(dim=1)
    strength = fewer_rows + fewer_columns
    assert_uniform(strength, 11)
    assert_uniform(fewer_columns[strength == 10], 11)
    assert_uniform(rows.float().argmax(dim=1)[fewer_rows == 3], 4)
    assert_uniform(columns.float().argmax(dim=1)[fewer_columns == 2], 3)


def assert_uniform(values, count):
    """Five standard deviations of a share, for every value from 0 to count - 1."""
    shares = torch.bincount(values, minlength=count) / len(values)
    assert len(shares) == count
    assert (shares - 1 / count).abs().max() < 5 * (1 / count * (1 - 1 / count) / len(values)) ** 0.5


def test_the_highest_number_stays_below_the_count():
    highest, counts = torch.tensor(1 - 2**-24), torch.arange(1, 4096)
    assert torch.equal(below(highest, counts), counts - 1)
    assert [below(highest, count).item() for count in (1, 11, 224)] == [0, 10, 223]


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_no_augmentation_reads_anything_from_the_device(kind):
    """On the meta device there is nothing to read: what waits for a value ends in an error."""
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8, device="meta")
    draws = AUGMENTATIONS[kind].draw(4, 4, True, torch.Generator()).to("meta")
    shown = augment(kind, images, draws)
    assert (shown.shape, shown.dtype, shown.device.type) == (images.shape, torch.float32, "meta")


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_alike_in_any_company_as_bytes_or_as_floats(kind, channels):
    images = pictures(40, channels, 16)
    draws = AUGMENTATIONS[kind].draw(40, 4, True, torch.Generator().manual_seed(1))
    together = augment(kind, images, draws)
    assert torch.equal(together[7:9], augment(kind, images[7:9], draws[7:9]))
    assert torch.equal(together, augment(kind, images.float() / 255, draws))
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert together.min() >= 0
    assert together.max() <= 1
