"""IDBH-weak's operations beside torchvision's, image by image; how often each comes; what is erased."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomErasing
from torchvision.transforms import functional as tv

from pipeline.data.idbh import OPERATIONS, TRIES, draw_idbh_weak, erase, idbh_weak, operate
from pipeline.data.shifts import cropshift

LEVELS = [0.0, 0.3, 0.5, 0.999]
RANGES = {"saturation": (0.1, 1.9), "brightness": (0.5, 1.9), "contrast": (0.5, 1.9), "sharpness": (0.1, 1.9)}
NEAREST = InterpolationMode.NEAREST


def pictures(channels, size=32, count=4):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(channels))


def how(level, sign=0.0, axis=0.0, count=4):
    return torch.tensor([[level, sign, axis]]).expand(count, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", RANGES)
def test_an_operation_on_colour_is_torchvisions(name, level, channels):
    images, (low, high) = pictures(channels), RANGES[name]
    expected = torch.stack([getattr(tv, f"adjust_{name}")(image, low + (high - low) * level) for image in images])
    torch.testing.assert_close(OPERATIONS[name](images, how(level)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_is_torchvisions_also_of_a_channel_of_one_value(channels):
    images = 0.2 + 0.3 * pictures(channels)
    images[0, 0] = 0.25
    changed = OPERATIONS["autocontrast"](images, how(0.5))
    torch.testing.assert_close(changed, torch.stack([tv.autocontrast(image) for image in images]), rtol=0, atol=2e-6)
    assert (changed[0, 0] == 0.25).all()
    assert changed[1].max() == 1
    assert changed[1].min() == 0


@pytest.mark.parametrize("size", [8, 16, 17, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_is_torchvisions_byte_for_byte(channels, size):
    generator = torch.Generator().manual_seed(size)
    stored = (torch.rand(6, channels, size, size, generator=generator) ** 3 * 200).byte()
    stored[0] = 40
    stored[1, :, : size // 2] = 0
    expected = torch.stack([tv.equalize(image) for image in stored])
    changed = OPERATIONS["equalize"](stored.float() / 255, how(0.5))
    assert torch.equal((changed * 255).round().byte(), expected)


@pytest.mark.parametrize("sign", [0.0, 0.9])
@pytest.mark.parametrize("axis", [0.0, 0.9])
@pytest.mark.parametrize("level", LEVELS)
def test_a_shear_is_torchvisions(level, axis, sign):
    images = pictures(3)
    degrees = math.degrees(0.05 + 0.1 * level) * (-1 if sign < 0.5 else 1)
    both = [degrees, 0.0] if axis < 0.5 else [0.0, degrees]
    expected = tv.affine(images, 0.0, [0, 0], 1.0, both, NEAREST, fill=0)
    assert agree(OPERATIONS["shear"](images, how(level, sign, axis)), expected)


@pytest.mark.parametrize("sign", [0.0, 0.9])
@pytest.mark.parametrize("degrees", range(1, 11))
def test_a_rotation_is_torchvisions(degrees, sign):
    images = pictures(3, 31)
    expected = tv.rotate(images, degrees * (-1 if sign < 0.5 else 1), NEAREST, fill=0)
    assert agree(OPERATIONS["rotation"](images, how((degrees - 0.5) / 10, sign)), expected)


def agree(ours, theirs):
    """All pixels, but for one in a thousand whose place is a tie up to rounding."""
    return (ours == theirs).float().mean() > 0.999


@pytest.mark.parametrize("name", ["shear", "rotation"])
def test_an_operation_on_shape_shows_pixels_of_the_image_or_black(name):
    images = (1 + torch.arange(32 * 32)).view(1, 1, 32, 32) / 4096
    changed = OPERATIONS[name](images, how(0.9, count=1))
    assert torch.isin(changed, torch.cat((images.flatten(), torch.zeros(1)))).all()
    assert not torch.equal(changed, images)


def test_a_factor_of_one_leaves_an_image_as_it_is():
    images = pictures(3)
    for name, (low, high) in RANGES.items():
        same = OPERATIONS[name](images, how((1 - low) / (high - low)))
        torch.testing.assert_close(same, images, rtol=0, atol=2e-7)


def test_every_image_has_one_operation_and_each_comes_as_often():
    count = 8000
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 16, 16, generator=generator).expand(count, -1, -1, -1) * 0.5
    choice, numbers = torch.rand(count, 1, generator=generator), torch.full((count, 3), 0.75)
    changed = operate(images, choice, numbers)
    one = (operation(images[:1], numbers[:1]) for operation in OPERATIONS.values())
    shown = [(changed == expected).flatten(1).all(dim=1) for expected in one]
    shares = torch.stack(shown).float().mean(dim=1)
    assert len(shares) == 8
    assert (shares - 1 / 8).abs().max() < 5 * (1 / 8 * 7 / 8 / count) ** 0.5
    assert torch.stack(shown).sum(dim=0).eq(1).all()


def test_erasing_makes_one_rectangle_black_as_often_and_as_large_as_torchvision_does():
    count = 4000
    draws = torch.rand(count, 3 + 2 * TRIES, generator=torch.Generator().manual_seed(0))
    shown = erase(torch.ones(count, 3, 32, 32), draws)
    torch.manual_seed(0)
    theirs = torch.stack([RandomErasing(p=0.5)(torch.ones(3, 32, 32)) for _ in range(count)])
    ours, expected = measured(shown), measured(theirs)
    for name in ("erased", "area", "ratio", "top", "left"):
        (mean, deviation), (their_mean, their_deviation) = ours[name], expected[name]
        error = (deviation**2 / count + their_deviation**2 / count) ** 0.5 * 2  # about half of the images count
        assert abs(mean - their_mean) < 4 * error, name
    assert abs(ours["erased"][0] - 0.5) < 4 * 0.5 / count**0.5
    assert torch.equal(shown[:, 0], shown[:, 2])


def measured(shown):
    """Return mean and deviation of what was erased; of rectangles only, which is checked."""
    black = shown[:, 0] == 0
    some = black.flatten(1).any(dim=1)
    rows, columns = black[some].any(dim=2).float(), black[some].any(dim=1).float()
    tall, broad = rows.sum(dim=1), columns.sum(dim=1)
    assert torch.equal(black[some].float().sum(dim=(1, 2)), tall * broad)
    values = {
        "erased": some.float(),
        "area": tall * broad / 1024,
        "ratio": (tall / broad).log(),
        "top": rows.argmax(dim=1).float(),
        "left": columns.argmax(dim=1).float(),
    }
    return {name: (value.mean().item(), value.std().item()) for name, value in values.items()}


def test_erasing_nothing_leaves_every_pixel():
    images, draws = pictures(3), torch.rand(4, 3 + 2 * TRIES)
    draws[:, 0] = 0.5
    assert torch.equal(erase(images, draws), images)


def test_idbh_weak_is_cropshift_then_an_operation_then_the_rectangle():
    images = (pictures(3, count=64) * 255).byte()
    draws = draw_idbh_weak(64, 0, True, torch.Generator().manual_seed(2))
    step = operate(cropshift(images, draws[:, :7]).float() / 255, draws[:, 7:8], draws[:, 8:11])
    shown = idbh_weak(images, draws)
    assert torch.equal(shown, erase(step, draws[:, 11:]))
    assert not torch.equal(shown, step)
    assert 0.2 < (shown != step).flatten(1).any(dim=1).float().mean() < 0.8
