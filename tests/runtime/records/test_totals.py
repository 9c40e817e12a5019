"""Counts of parts become those of the whole."""

import pytest

from runtime.errors import BadRun
from runtime.records.measurements import Agreement
from runtime.records.totals import add_counts

TOLD = Agreement(n=4, same_prediction=3, near=2, images=2)
UNTOLD = Agreement(n=4, same_prediction=4)


def test_counts_are_added_and_what_no_part_counted_stays_unknown():
    assert add_counts([TOLD, TOLD]) == Agreement(n=8, same_prediction=6, near=4, images=4)
    assert add_counts([UNTOLD, None, UNTOLD]) == Agreement(n=8, same_prediction=8)


@pytest.mark.parametrize("parts", [[TOLD, UNTOLD], [UNTOLD, TOLD]], ids=["last", "first"])
def test_a_count_that_one_part_lacks_is_neither_lost_nor_taken_for_none(parts):
    with pytest.raises(BadRun, match="only some parts have near"):
        add_counts(parts)
