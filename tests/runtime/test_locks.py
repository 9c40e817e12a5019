"""Locks between processes: told as what they are, and waited for aloud."""

import errno
import fcntl
import os
import threading

import pytest

from runtime.errors import MissingEnvironment, UsageFault
from runtime.locks import lock_if_free, wait_for_lock
from runtime.suite.journal import Journal

HOLDERS = {
    "waiting": lambda place: wait_for_lock(place / "lock", "the engines"),
    "refusing": lambda place: lock_if_free(place / "lock"),
    "a directory": lock_if_free,
    "a journal": lambda place: Journal(place, "a" * 64),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_and_not_taken_for_another_process(tmp_path, monkeypatch, holder, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(MissingEnvironment, match=r"the file system of .* has no locks") as told,
        HOLDERS[holder](tmp_path),
    ):
        pass
    assert "NFS" in told.value.hint


def test_a_lock_that_another_process_holds_is_refused_or_told(tmp_path):
    with lock_if_free(tmp_path / "lock") as mine, lock_if_free(tmp_path / "lock") as its:
        assert (mine, its) == (True, False)
    with lock_if_free(tmp_path / "lock") as free:
        assert free


def test_who_waits_says_for_what_after_a_moment(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("runtime.locks.MOMENT", 0.2)
    path, entered = tmp_path / "lock", threading.Event()

    def wait():
        with wait_for_lock(path, "the TensorRT engines"):
            entered.set()

    with lock_if_free(path):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(1)
    waiting.join(10)
    assert entered.is_set()
    said = capsys.readouterr().err
    assert said == f"waiting for the TensorRT engines: another process holds {path}\n"


def test_who_gets_a_lock_at_once_or_within_a_moment_says_nothing(tmp_path, capsys):
    path = tmp_path / "deeper" / "lock"
    with wait_for_lock(path, "the state"):
        handle = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX)
    release = threading.Timer(0.2, os.close, [handle])
    release.start()
    with wait_for_lock(path, "the state"):
        release.join()
    assert capsys.readouterr().err == ""


def test_a_lock_in_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(MissingEnvironment, match="cannot be written to"),
        wait_for_lock(tmp_path / "file" / "lock", "x"),
    ):
        pass


def test_two_journals_of_one_directory_are_refused_as_another_process(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    with pytest.raises(UsageFault, match="another process is using"):
        Journal(tmp_path, "a" * 64)
    journal.close()
