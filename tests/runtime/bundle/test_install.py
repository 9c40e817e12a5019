"""Installing: never back, never half, whenever the power fails."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.bundle.install import install
from runtime.bundle.opening import open_bundle
from runtime.bundle.rollback import accept, check_not_older, read_state, state_lock
from runtime.errors import BadInput, MissingEnvironment, Rollback
from tests.paths import ROOT
from tests.runtime.bundle.bundles import sign_bundle, write_bundle


@pytest.fixture
def make(tmp_path, files, key):
    """Return a function that makes an opened bundle of a version, signed where asked for."""

    def make(version, *, name="tiny", created="2026-01-01T00:00:00Z", trust=None):
        path = write_bundle(
            tmp_path / f"{name}-{version}-{created[:4]}", files, n=60, version=version, name=name, created=created
        )
        return open_bundle(sign_bundle(path, key) if trust else path, trust)

    return make


@pytest.fixture
def to(tmp_path):
    return tmp_path / "device"


def current(to, link="current"):
    return open_bundle(to / link).manifest.version


def test_the_first_bundle_is_the_current_one_and_there_is_none_before(make, to):
    bundle = make(1)
    target = install(bundle, to, state=to)
    assert open_bundle(to / "current").contents == bundle.contents
    assert (to / "current").resolve() == target.resolve()
    assert not (to / "previous").exists()


def test_a_newer_bundle_takes_over_and_the_one_before_is_kept_and_no_other(make, to):
    for version in (1, 2, 3):
        install(make(version), to, state=to)
    assert (current(to), current(to, "previous")) == (3, 2)
    assert len(list((to / "versions").iterdir())) == 2


def test_a_file_beside_the_versions_is_left_alone(make, to):
    install(make(1), to, state=to)
    (to / "versions" / "notes.txt").write_text("mine")
    for version in (2, 3):
        install(make(version), to, state=to)
    assert {path.name for path in (to / "versions").iterdir()} >= {"notes.txt"}
    assert (current(to), current(to, "previous")) == (3, 2)


def test_a_signature_travels_along(make, to, trust):
    install(make(1, trust=trust), to, state=to)
    assert open_bundle(to / "current", trust).signed_by


def test_an_older_bundle_is_refused_and_nothing_changes(make, to):
    install(make(2), to, state=to)
    before = snapshot(to)
    with pytest.raises(Rollback, match="is tiny version 1; version 2 was accepted here") as caught:
        install(make(1), to, state=to)
    assert caught.value.exit_code == 3
    assert "--allow-rollback" in caught.value.hint
    assert snapshot(to) == before


def snapshot(to):
    return {
        path.relative_to(to): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in to.rglob("*")
    }


def test_another_bundle_of_the_same_version_is_refused(make, to):
    install(make(1), to, state=to)
    with pytest.raises(Rollback, match="is another tiny version 1"):
        install(make(1, created="2027-01-01T00:00:00Z"), to, state=to)


def test_going_back_on_purpose_is_possible_and_remembered(make, to):
    for version in (1, 2):
        install(make(version), to, state=to)
    back = open_bundle(to / "previous")
    install(back, to, state=to, allow_rollback=True)
    assert (current(to), current(to, "previous")) == (1, 2)
    install(make(3), to, state=to)
    with pytest.raises(Rollback):
        install(back, to, state=to)


def test_installing_again_changes_nothing(make, to):
    install(make(1), to, state=to)
    install(make(2), to, state=to)
    before = snapshot(to)
    install(open_bundle(to / "current"), to, state=to)
    assert snapshot(to) == before


def test_what_a_killed_process_left_of_the_record_is_removed_by_installing_again(make, to):
    install(make(1), to, state=to)
    (to / ".accepted.json.01234567").write_text("{")
    install(make(2), to, state=to)
    assert sorted(path.name for path in to.glob(".*")) == []


def test_a_link_that_cannot_be_put_in_place_leaves_nothing_beside(make, to, monkeypatch):
    install(make(1), to, state=to)
    replace = Path.replace

    def failing(path, target):
        if path.is_symlink():
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    newer = make(2)
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        install(newer, to, state=to)
    assert sorted(path.name for path in to.glob(".*")) == []
    assert current(to) == 1


def test_a_damaged_installation_is_repaired_by_installing_again(make, to):
    bundle = make(1)
    target = install(bundle, to, state=to)
    (target / "evaluation.npz").write_bytes(b"?")
    install(bundle, to, state=to)
    assert open_bundle(to / "current").contents == bundle.contents


def test_one_place_holds_one_model(make, to):
    install(make(1, name="lion-2"), to, state=to)
    with pytest.raises(BadInput, match="holds another model, lion-2-1-"):
        install(make(1, name="lion"), to, state=to)


def test_a_current_that_is_no_link_is_left_alone(make, to):
    (to / "current").mkdir(parents=True)
    with pytest.raises(BadInput, match="is not a link that edgeproof made"):
        install(make(1), to, state=to)
    assert list((to / "current").iterdir()) == []


def test_what_was_accepted_can_be_kept_elsewhere_for_many_models(make, tmp_path):
    state = tmp_path / "state"
    for name in ("lion", "bear"):
        install(make(2, name=name), tmp_path / name, state=state)
    assert {name: entry.version for name, entry in read_state(state).accepted.items()} == {"lion": 2, "bear": 2}
    with pytest.raises(Rollback):
        install(make(1, name="lion"), tmp_path / "elsewhere", state=state)
    assert not (tmp_path / "elsewhere/current").exists()


def test_a_bundle_that_nobody_signed_does_not_raise_the_mark_of_a_signed_one(make, tmp_path, trust):
    accept(tmp_path, make(2, trust=trust))
    accept(tmp_path, make(9))
    check_not_older(read_state(tmp_path), make(3, trust=trust))
    assert read_state(tmp_path).accepted["tiny"].version == 2


def test_a_damaged_record_is_refused_and_never_taken_for_none(make, tmp_path):
    (tmp_path / "accepted.json").write_text('{"accepted": {"tiny": {"ver')
    with pytest.raises(BadInput, match=r"accepted\.json") as caught:
        accept(tmp_path, make(1))
    assert "remove it only if" in caught.value.hint


def test_a_place_that_cannot_be_written_to_is_the_environments_fault(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingEnvironment, match="cannot be written to"):
        install(make(1), tmp_path / "file", state=tmp_path / "file")


class PowerCut(BaseException):
    pass


def test_a_power_cut_at_any_step_leaves_old_or_new_and_installing_again_finishes(make, tmp_path, monkeypatch):
    """Each step that reaches the disk is cut in turn, and nothing is cleaned up after it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # counted below, and slow
    bundles, states, step = [make(1), make(2), make(3)], set(), 0
    base = tmp_path / "base"
    for bundle in bundles[:2]:
        install(bundle, base, state=base)
    while True:
        to = tmp_path / f"device-{step}"
        shutil.copytree(base, to, symlinks=True)
        with monkeypatch.context() as patch:
            left = cut_after(patch, step)
            with contextlib.suppress(PowerCut):
                install(bundles[2], to, state=to)
        states.add(current(to))
        assert read_state(to).accepted["tiny"].version >= current(to)
        assert current(to, "previous") in (1, 2)
        with pytest.raises(Rollback):
            install(bundles[0], to, state=to)
        install(bundles[2], to, state=to)
        assert (current(to), current(to, "previous"), read_state(to).accepted["tiny"].version) == (3, 2, 3)
        assert len(list((to / "versions").iterdir())) == 2
        if left[0] >= 0:
            break
        step += 1
    assert states == {2, 3}
    assert step > 20


def cut_after(patch, steps):
    """Let `steps` more system calls through that change the disk, and cut the power at the next, and at all later."""
    left = [steps]

    def cutting(call):
        def cut(*arguments, **keywords):
            left[0] -= 1
            if left[0] < 0:
                raise PowerCut
            return call(*arguments, **keywords)

        return cut

    for name in ("fsync", "replace", "rename", "symlink", "unlink", "mkdir", "rmdir"):
        patch.setattr(os, name, cutting(getattr(os, name)))
    return left


def kill_installations(make, tmp_path, *, kills, seed):
    """Let so many installations be killed midway; see tests/runtime/bundle/killing.py."""
    paths = [make(version).path for version in range(1, 6)]
    command = [sys.executable, "-m", "tests.runtime.bundle.killing", tmp_path / "devices", kills, seed, *paths]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert result.returncode == 0, result.stderr


def test_a_killed_installation_never_goes_back(make, tmp_path):
    kill_installations(make, tmp_path, kills=5, seed=0)


@pytest.mark.slow
def test_five_hundred_killed_installations_never_go_back(make, tmp_path):
    kill_installations(make, tmp_path, kills=500, seed=1)


def test_two_at_once_never_lose_the_newer_record(make, tmp_path):
    """Without the lock one would read the record before the other's step forward, and write its own over it."""
    bundles = [make(version) for version in range(1, 13)]

    def accept_all(part):
        for bundle in bundles[part::3]:
            with contextlib.suppress(Rollback), state_lock(tmp_path / "state"):
                accept(tmp_path / "state", bundle)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(accept_all, range(3)))
    assert read_state(tmp_path / "state").accepted["tiny"].version == 12
