import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import BadRun, UsageFault
from runtime.suite.journal import Journal, Work

REQUEST = "a" * 64
INDEX = np.arange(4)


def work(number):
    return Work({"broken": number == INDEX, "x": np.full((4, 2), number, np.float32)}, 0.5, 10 + number, number)


def written(directory, units=3):
    """Return the bytes of a journal with some units."""
    directory.mkdir(parents=True, exist_ok=True)
    journal = Journal(directory, REQUEST)
    for number in range(units):
        journal.unit(f"pgd-{number}", INDEX, lambda number=number: work(number))
    journal.close()
    return (directory / "journal.jsonl").read_bytes()


def never():
    raise AssertionError("a unit that is done was done again")


def test_a_unit_that_is_done_is_recalled_and_not_done_again(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, REQUEST)
    assert len(journal) == 3
    assert journal.holds("pgd-1")
    found = journal.unit("pgd-1", INDEX, never)
    np.testing.assert_array_equal(found.arrays["x"], work(1).arrays["x"])
    assert found.arrays["broken"].dtype == bool
    assert (found.seconds, found.forwards, found.gradients) == (0.5, 11, 1)
    assert journal.earlier_seconds == 0.5
    journal.close()


def test_every_line_says_what_was_done_and_what_it_cost(tmp_path):
    header, *lines = map(json.loads, written(tmp_path).splitlines())
    assert header["request_sha256"] == REQUEST
    assert [line["unit"] for line in lines] == ["pgd-0", "pgd-1", "pgd-2"]
    assert [line["forwards"] for line in lines] == [10, 11, 12]
    assert all(line["images"] == 4 for line in lines)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_a_journal_cut_anywhere_keeps_the_lines_that_are_whole(tmp_path_factory, cut):
    directory = tmp_path_factory.mktemp("cut")
    data = written(directory)
    kept = data[: round(cut * len(data))]
    (directory / "journal.jsonl").write_bytes(kept)
    if not kept.count(b"\n"):
        with pytest.raises(BadRun, match="is missing"):
            Journal(directory, REQUEST)
        return
    journal = Journal(directory, REQUEST)
    assert len(journal) == kept.count(b"\n") - 1
    for number in range(3):
        journal.unit(f"pgd-{number}", INDEX, lambda number=number: work(number))
    journal.close()
    again = (directory / "journal.jsonl").read_bytes()
    assert again == data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_journal_with_one_changed_byte_is_refused(tmp_path_factory, place, flip):
    directory = tmp_path_factory.mktemp("flip")
    data = bytearray(written(directory))
    at = int(place * (len(data) - 1))  # without its last line feed the last line is but torn
    data[at] ^= flip
    (directory / "journal.jsonl").write_bytes(data)
    with pytest.raises(BadRun, match=r"is damaged|is of another"):
        Journal(directory, REQUEST)


@pytest.mark.parametrize(
    "order", [[0, 2, 3], [0, 2, 1, 3], [1, 2, 3], [0, 1, 1, 2, 3]], ids=["lost", "moved", "no head", "twice"]
)
def test_lines_that_are_lost_moved_or_doubled_are_refused(tmp_path, order):
    lines = written(tmp_path).splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(BadRun):
        Journal(tmp_path, REQUEST)


def test_a_journal_of_another_request_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(BadRun, match="another request"):
        Journal(tmp_path, "b" * 64)


@pytest.mark.parametrize("now", [{"numpy": "2.0", "cores": 2}, {"numpy": "1.0", "cores": 4}, {"numpy": "1.0"}])
def test_a_journal_of_another_software_or_machine_is_refused_and_names_it(tmp_path, now):
    then = {"numpy": "1.0", "cores": 2}
    Journal(tmp_path, REQUEST, then).close()
    Journal(tmp_path, REQUEST, then).close()
    (name,) = (name for name in then if now.get(name) != then[name])
    with pytest.raises(BadRun, match=f"began with {name} {then[name]}, and this is {now.get(name, 'unknown')}"):
        Journal(tmp_path, REQUEST, now)


@pytest.mark.parametrize(
    "damage", [bytes.upper, lambda data: data[:-1], lambda data: None], ids=["bytes", "cut", "gone"]
)
def test_what_a_unit_left_is_refused_where_it_is_damaged(tmp_path, damage):
    written(tmp_path)
    path = tmp_path / "units" / "pgd-1.npz"
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    journal = Journal(tmp_path, REQUEST)
    journal.unit("pgd-0", INDEX, never)
    with pytest.raises(BadRun, match=r"pgd-1\.npz is damaged"):
        journal.unit("pgd-1", INDEX, never)
    journal.close()


def test_what_a_unit_left_is_refused_for_other_images(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, REQUEST)
    with pytest.raises(BadRun, match="other images"):
        journal.unit("pgd-0", INDEX + 1, never)
    journal.close()


def test_two_processes_never_work_in_one_directory(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, REQUEST)
    with pytest.raises(UsageFault, match="another process"):
        Journal(tmp_path, REQUEST)
    journal.close()
    Journal(tmp_path, REQUEST).close()


def test_a_disk_that_is_full_is_an_error_and_its_half_line_is_dropped_later(tmp_path, monkeypatch):
    from runtime.suite import journal as module

    written(tmp_path, units=1)
    journal, write = Journal(tmp_path, REQUEST), module.os.write
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            journal.unit("pgd-1", INDEX, lambda: work(1))
    journal.close()
    journal = Journal(tmp_path, REQUEST)
    assert len(journal) == 1
    journal.close()
