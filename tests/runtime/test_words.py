"""Figures in words."""

import pytest

from runtime.words import file_size, radius, roughly


@pytest.mark.parametrize(
    ("count", "said"), [(812, "0.8 kB"), (36_240, "36.2 kB"), (99_900, "99.9 kB"), (2_810_000, "2.8 MB")]
)
def test_a_small_file_is_not_said_to_have_0_0_mb(count, said):
    assert file_size(count) == said


@pytest.mark.parametrize(
    ("eps", "said"),
    [
        (8 / 255, "8/255"), (1.5 * (8 / 255), "12/255"), (2.5 / 255, "2.5/255"), (0.25 / 255, "0.25/255"),
        (0.0157, "0.0157"), (0.03, "0.03"), (0.3, "0.3"), (1.0, "1"), (1e-9, "1e-09"), (0.0, "0"),
    ],
)  # fmt: skip
def test_a_radius_is_written_as_people_write_it(eps, said):
    assert radius(eps) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "a minute"),
        (60, "a minute"),
        (89, "a minute"),
        (91, "2 minutes"),
        (720, "12 minutes"),
        (17_600, "4.9 hours"),
    ],
)
def test_an_estimate_is_written_with_no_more_digits_than_it_has(seconds, said):
    assert roughly(seconds) == said
