"""What a command leaves on disk is as private as the umask says: images are in it."""

import os
import stat

import pytest

from runtime.bundle.signing import new_key
from runtime.files import write_atomic
from runtime.suite.journal import Journal
from tests.command_line import edgeproof
from tests.modes import UMASKS, left, under


@pytest.fixture(params=UMASKS, ids=oct)
def modes(request):
    with under(request.param) as expected:
        yield expected


def test_all_that_a_verify_leaves_keeps_the_umask(bundle, tmp_path, modes):
    out, state = tmp_path / "deeper" / "run", tmp_path / "state"
    result = edgeproof("verify", bundle, "--out", out, "--state", state, "--fail-under", "5%", "--save-adversarial")
    assert result.exit_code == 0, result.stderr
    assert {"evidence.npz", "gallery.npz", "journal.jsonl", "report.html", "report.json"} <= set(os.listdir(out))
    assert left(out) == left(state) == ({modes[0]}, {modes[1]})
    assert stat.S_IMODE(out.parent.stat().st_mode) == modes[1]


def test_the_units_that_a_run_keeps_until_it_is_finished_keep_the_umask(bundle, tmp_path, modes, monkeypatch):
    monkeypatch.setattr(Journal, "drop_units", lambda journal: None)
    assert edgeproof("verify", bundle, "--out", tmp_path / "run", "--attacks", "fgsm").exit_code == 0
    assert list((tmp_path / "run" / "units").iterdir())
    assert left(tmp_path / "run") == ({modes[0]}, {modes[1]})


def test_an_installed_bundle_keeps_the_umask(bundle, tmp_path, modes):
    assert edgeproof("install", bundle, "--to", tmp_path / "place").exit_code == 0
    assert left(tmp_path / "place") == ({modes[0]}, {modes[1]})


def test_a_shard_and_what_is_merged_of_it_keep_the_umask(bundle, tmp_path, modes):
    for shard in (1, 2):
        command = ("verify", bundle, "--out", tmp_path / f"{shard}", "--attacks", "fgsm", "--shard", f"{shard}/2")
        assert edgeproof(*command).exit_code == 0
    assert edgeproof("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "whole").exit_code == 0
    for name in ("1", "2", "whole"):
        assert left(tmp_path / name) == ({modes[0]}, {modes[1]})


def test_what_is_written_in_place_of_a_file_has_the_mode_of_a_new_one(tmp_path, modes):
    (tmp_path / "file").touch(0o600)
    write_atomic(tmp_path / "file", b"new")
    assert left(tmp_path / "file")[0] == {modes[0]}


def test_a_private_key_is_its_owners_alone_under_every_umask(tmp_path, modes):
    new_key(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "private.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys" / "public.pem").stat().st_mode) == modes[0]
