"""Figures in words."""

import pytest

from runtime.words import file_size


@pytest.mark.parametrize(
    ("count", "said"), [(812, "0.8 kB"), (36_240, "36.2 kB"), (99_900, "99.9 kB"), (2_810_000, "2.8 MB")]
)
def test_a_small_file_is_not_said_to_have_0_0_mb(count, said):
    assert file_size(count) == said
