"""New directories: beside their place, or inside it where it is a volume; and what a killed process leaves of files."""

import fcntl
import os
import shutil
import signal
import tempfile

import pytest

from runtime.errors import MissingEnvironment, UsageFault
from runtime.files import check_new_directory, new_directory, remove_half_written
from tests.runtime.mounts import read_only, tmpfs


def fill(path, *names, then=None):
    with new_directory(path) as directory:
        for name in names:
            (directory / name).write_text(name)
        if then:
            raise then


def test_an_empty_volume_is_filled_and_holds_nothing_else(tmp_path):
    with tmpfs(tmp_path / "volume", 2**20) as volume:
        fill(volume, "a", "b")
        assert sorted(path.name for path in volume.iterdir()) == ["a", "b"]


def test_a_volume_in_a_place_that_cannot_be_written_to_is_filled_too(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "volume").mkdir()
    with read_only(tmp_path / "root"), tmpfs(tmp_path / "root" / "volume", 2**20) as volume:
        fill(volume, "a")
        assert (volume / "a").read_text() == "a"


def test_an_empty_directory_that_is_there_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "a")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_a_failure_leaves_a_directory_that_was_there_empty_and_another_not_there(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path / name, "a", then=KeyboardInterrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []


def test_a_place_that_takes_no_file_is_told_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    with read_only(tmp_path / "out"):
        for place in (tmp_path / "out", tmp_path / "out" / "deeper"):
            with pytest.raises(MissingEnvironment, match="cannot be written to: Read-only file system"):
                check_new_directory(place)
    (tmp_path / "out" / "a").write_text("a")
    with pytest.raises(UsageFault):
        check_new_directory(tmp_path / "out")


def killed_in_the_middle(path):
    """Leave what a process leaves that is killed while it fills a directory."""
    child = os.fork()
    if not child:
        with new_directory(path) as directory:
            (directory / "a").write_text("a")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["previous", "original", "20261130"])
def test_what_a_user_set_aside_beside_it_stays(tmp_path, name):
    (tmp_path / f".out.{name}" / "out").mkdir(parents=True)
    (tmp_path / f".out.{name}" / "out" / "model.onnx").write_text("mine")
    (tmp_path / f".out.{name}0").mkdir()
    check_new_directory(tmp_path / "out")
    fill(tmp_path / "out", "a")
    assert (tmp_path / f".out.{name}" / "out" / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_process_began_makes_room_for_the_next_one(tmp_path, there):
    out = tmp_path / "out"
    if there:  # a volume
        out.mkdir()
    killed_in_the_middle(out)
    assert list(tmp_path.rglob(".out.*"))
    fill(out, "b")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["out", "out/b"]


def test_what_another_process_is_filling_is_left_to_it(tmp_path):
    with new_directory(tmp_path / "out") as directory:
        (directory / "a").write_text("a")
        check_new_directory(tmp_path / "out")
        assert (directory / "a").read_text() == "a"
    assert (tmp_path / "out" / "a").exists()


def test_a_directory_that_another_process_removes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Another process that looks at the same place takes it for what a killed one left."""
    lock, looked = fcntl.flock, []

    def look_and_lock(handle, how):
        if not looked:
            looked.append(True)
            check_new_directory(tmp_path / "out")
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", look_and_lock)
    with new_directory(tmp_path / "out") as directory:
        (directory / "file").write_bytes(b"whole")
    assert looked
    assert (tmp_path / "out" / "file").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_another_process_removes_before_it_is_opened_is_made_again(tmp_path, monkeypatch):
    class Removed(tempfile.TemporaryDirectory):
        left = 2  # that of the check before, and the first that is begun

        def __enter__(self):
            if Removed.left:
                Removed.left -= 1
                shutil.rmtree(self.name)
            return super().__enter__()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Removed)
    with new_directory(tmp_path / "out") as directory:
        (directory / "file").write_bytes(b"whole")
    assert Removed.left == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_only_looks_like_a_directory_that_was_begun_stays(tmp_path):
    for name, content in ((".out.12345678", "mine"), (".out.cfg", "out"), (".other.12345678", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    check_new_directory(tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_killed_process_left_of_a_file_is_removed_and_nothing_else(tmp_path):
    kept = {"a.json", ".a.json.old", ".a.json.0123456g", ".b.json.01234567"}
    for name in (*kept, ".a.json.01234567", ".a.json.89abcdef"):
        (tmp_path / name).write_text("")
    remove_half_written(tmp_path, "a.json")
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_half_written(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept - {".b.json.01234567"}
    remove_half_written(tmp_path / "nowhere")
