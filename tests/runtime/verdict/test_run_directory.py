"""The run directory belongs to one process at a time, also when its run is finished."""

import json

import pytest

from runtime.errors import UsageFault
from runtime.locks import lock_if_free
from runtime.suite.journal import JOURNAL, UNITS
from runtime.verdict.run_directory import finished as is_finished
from runtime.verdict.run_directory import open_run, read_request


@pytest.fixture
def left(finished):
    """A finished run, and what a process left that was killed after it had written its report."""
    out, _ = finished
    (out / UNITS).mkdir()
    leftovers = (out / UNITS / "clean-0.npz", out / ".report.html.01234567")
    for path in leftovers:
        path.write_bytes(b"")
    return out, leftovers


def test_what_a_killed_process_left_of_a_finished_run_is_removed(left):
    out, leftovers = left
    assert is_finished(out, read_request(out))
    assert not any(path.exists() for path in leftovers)
    assert not (out / UNITS).exists()


def test_nothing_is_removed_from_a_finished_run_while_another_process_is_at_work_there(left):
    out, leftovers = left
    with lock_if_free(out / JOURNAL) as mine:
        assert mine
        assert is_finished(out, read_request(out))
        assert all(path.exists() for path in leftovers)


def test_a_run_that_another_process_finished_meanwhile_is_not_begun_again(finished):
    out, _ = finished
    before = (out / JOURNAL).read_bytes()
    made_by = json.loads(before.partition(b"\n")[0])["made_by"]
    refused = pytest.raises(UsageFault, match="another process has finished")
    with refused, open_run(out, read_request(out), resume=True, made_by=made_by):
        pytest.fail("it went on with a finished run")
    assert (out / JOURNAL).read_bytes() == before


def test_a_finished_run_without_a_journal_gets_none(finished):
    out, _ = finished
    (out / JOURNAL).unlink()
    assert is_finished(out, read_request(out))
    assert not (out / JOURNAL).exists()
