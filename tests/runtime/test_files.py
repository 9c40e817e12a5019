"""New directories: beside their place, or inside it where it is a volume."""

import pytest

from runtime.errors import MissingEnvironment, UsageFault
from runtime.files import check_new_directory, new_directory
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
