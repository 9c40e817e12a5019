"""The witness of a judge that nobody can look into sees what the judge sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from runtime.verdict.subject import witness_of


class Echo:
    """Answers with the images themselves."""

    def logits(self, x):
        return x


@pytest.mark.parametrize(("images", "seen"), [("float32", 0.5), ("uint8", 128 / 255)])
def test_a_witness_of_a_judge_of_bytes_is_asked_at_the_nearest_bytes(images, seen):
    x = np.full((1, 1, 2, 2), 0.5, np.float32)
    answer = witness_of(Echo(), SimpleNamespace(images=images))(x)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, np.full_like(x, seen))


def test_an_engine_of_ours_has_no_witness():
    assert witness_of(None, None) is None
