import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from runtime.errors import EngineFault, MissingEnvironment, OutOfMemory
from runtime.files import sha256
from runtime.interrupt import sigterm_interrupts
from runtime.machine.driver import CudaDevice
from runtime.tensorrt.store import Built, EngineKey, EngineStore, Profile, Stale, engines_directory

KEY = EngineKey(
    graph_sha256="1" * 64, tensorrt="10.3.0", cuda="12.6", gpu="Orin", compute_capability="8.7",
    profile=Profile(usual=64, most=64),
)  # fmt: skip
DEVICE = "d" * 64


class Factory:
    """Builds engines, and remembers what was asked of it."""

    def __init__(self):
        self.given, self.loaded, self.refuses = [], [], set()

    def build(self, timings):
        self.given.append(timings)
        return Built(b"engine %d" % len(self.given), b"timings %d" % len(self.given))

    def load(self, data):
        self.loaded.append(data)
        if data in self.refuses:
            raise EngineFault("TensorRT does not load the engine: version mismatch")

    def obtain(self, store, key=KEY):
        return store.obtain(key, self.build, self.load, "forward graph")


@pytest.fixture
def store(tmp_path):
    return EngineStore(tmp_path / "engines", DEVICE)


@pytest.fixture
def factory():
    return Factory()


def file(store, suffix):
    return store.directory / (KEY.digest() + suffix)


def test_an_engine_is_built_once_and_known_by_its_digest(store, factory):
    assert factory.obtain(store) == factory.obtain(store) == sha256(b"engine 1")
    assert (factory.given, factory.loaded) == ([b""], [b"engine 1", b"engine 1"])


def test_what_is_on_disk_is_the_users_alone(store, factory):
    factory.obtain(store)
    assert store.directory.stat().st_mode & 0o777 == 0o700
    engines = [path for path in store.directory.iterdir() if path.name != ".lock"]
    assert {path.stat().st_mode & 0o777 for path in engines} == {0o600}
    assert len(engines) == 3


CHANGES = {
    "graph_sha256": "2" * 64, "tensorrt": "10.4.0", "cuda": "12.8", "gpu": "Thor", "compute_capability": "11.0",
    "profile": Profile(usual=8, most=64), "tf32": True, "workspace": 1,
}  # fmt: skip


def test_every_field_of_the_key_is_tried():
    assert CHANGES.keys() == EngineKey.model_fields.keys() - {"strongly_typed"}


@pytest.mark.parametrize("field", CHANGES)
def test_another_engine_is_built_where_anything_that_decides_it_differs(store, factory, field):
    factory.obtain(store)
    factory.obtain(store, KEY.model_copy(update={field: CHANGES[field]}))
    assert len(factory.given) == 2
    factory.obtain(store)
    assert len(factory.given) == 2


def test_timings_of_kernels_serve_the_next_graph_but_no_other_tensorrt(store, factory):
    factory.obtain(store)
    factory.obtain(store, KEY.model_copy(update={"graph_sha256": "2" * 64}))
    factory.obtain(store, KEY.model_copy(update={"tensorrt": "10.4.0"}))
    assert factory.given == [b"", b"timings 1", b""]


def sidecar(store, **changes):
    path = file(store, ".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def link(path, other):
    other.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(other)


DAMAGES = {
    "its file is not the one that was built": lambda store: file(store, ".engine").write_bytes(b"engine 9"),
    "its file is missing": lambda store: file(store, ".engine").unlink(),
    "there is none yet": lambda store: file(store, ".json").unlink(),
    "its sidecar is damaged": lambda store: file(store, ".json").write_text('{"key"'),
    "another device built the one on disk": lambda store: sidecar(store, device="e" * 64),
    "its sidecar belongs to another engine": lambda store: sidecar(
        store, key=json.loads(KEY.model_copy(update={"tf32": True}).model_dump_json())
    ),
    "cannot be read: Too many levels of symbolic links": lambda store: link(
        file(store, ".engine"), store.directory.parent / "elsewhere"
    ),
    "is not a file that only you can write to": lambda store: file(store, ".engine").chmod(0o666),
}


@pytest.mark.parametrize(("reason", "damage"), DAMAGES.items(), ids=DAMAGES)
def test_what_is_stale_or_damaged_is_built_again_and_the_reason_said(store, factory, capsys, reason, damage):
    factory.obtain(store)
    damage(store)
    capsys.readouterr()
    assert factory.obtain(store) == sha256(b"engine 2")
    assert reason in capsys.readouterr().err
    assert factory.loaded == [b"engine 1", b"engine 2"]
    assert factory.obtain(store) == sha256(b"engine 2")
    assert len(factory.given) == 2


def test_a_file_of_somebody_else_is_never_loaded(store, factory, monkeypatch):
    factory.obtain(store)
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda handle: os.stat_result((*real(handle)[:4], 4711, *real(handle)[5:])))
    factory.obtain(store)
    assert factory.loaded == [b"engine 1", b"engine 2"]


def test_an_engine_that_tensorrt_does_not_load_is_built_again(store, factory, capsys):
    factory.obtain(store)
    factory.refuses.add(b"engine 1")
    assert factory.obtain(store) == sha256(b"engine 2")
    assert "version mismatch; building it" in capsys.readouterr().err


def test_an_engine_that_is_not_even_loaded_when_it_is_new_ends_it(store, factory):
    factory.refuses |= {b"engine 1", b"engine 2"}
    with pytest.raises(EngineFault, match="version mismatch"):
        factory.obtain(store)
    with pytest.raises(EngineFault, match="version mismatch"):
        factory.obtain(store)
    assert len(factory.given) == 2


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_may_write_to_is_refused(store, factory, mode):
    store.directory.mkdir()
    store.directory.chmod(mode)
    with pytest.raises(MissingEnvironment, match="a directory that only you can write to") as caught:
        factory.obtain(store)
    assert "chmod 700" in caught.value.hint
    assert not factory.given


def test_a_link_in_place_of_the_directory_is_refused(store, factory, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    store.directory.symlink_to(tmp_path / "real")
    with pytest.raises(MissingEnvironment, match="a directory that only you can write to"):
        factory.obtain(store)


def test_a_place_that_cannot_be_made_names_the_way_out(tmp_path, factory):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingEnvironment, match="cannot be made") as caught:
        factory.obtain(EngineStore(tmp_path / "file" / "engines", DEVICE))
    assert "--state" in caught.value.hint


def test_two_at_once_build_one(store, factory):
    threads = [threading.Thread(target=factory.obtain, args=(store,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert factory.given == [b""]
    assert factory.loaded == [b"engine 1"] * 4


def test_engines_lie_in_the_state_directory_else_in_the_users_cache(monkeypatch, tmp_path):
    assert engines_directory(tmp_path) == tmp_path / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert engines_directory(None) == tmp_path / "cache" / "edgeproof" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engines_directory(None) == Path(tmp_path) / ".cache" / "edgeproof" / "engines"


def test_a_user_without_a_home_is_told_of_the_way_out(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(MissingEnvironment, match="no directory for engines") as caught:
        engines_directory(None)
    assert "--state" in caught.value.hint


@pytest.mark.parametrize("what", [".engine", ".json"])
def test_a_directory_in_place_of_a_file_is_not_read(store, factory, what):
    factory.obtain(store)
    file(store, what).unlink()
    file(store, what).mkdir()
    with pytest.raises(Stale, match="not a file that only you"):
        store.read(KEY)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_an_engine_is_built_is_not_lost_and_the_engine_is_kept(store, factory, number):
    def build(timings):
        with contextlib.suppress(KeyboardInterrupt):  # as TensorRT does with what its logger raises
            os.kill(os.getpid(), number)
        return factory.build(timings)

    with sigterm_interrupts(), pytest.raises(KeyboardInterrupt):
        store.obtain(KEY, build, factory.load, "forward graph")
    assert not factory.loaded
    assert factory.obtain(store) == sha256(b"engine 1")
    assert len(factory.given) == 1


def test_memory_that_runs_out_in_loading_builds_no_other_engine(store, factory):
    factory.obtain(store)

    def load(data):
        raise OutOfMemory("the engine does not fit")

    with pytest.raises(OutOfMemory):
        store.obtain(KEY, factory.build, load, "forward graph")
    assert len(factory.given) == 1


def test_two_boards_with_the_same_gpu_are_two_devices(monkeypatch, tmp_path):
    gpu = CudaDevice("Orin", "00" * 16, "8.7", "12.6")
    serial = tmp_path / "serial-number"
    monkeypatch.setattr("runtime.machine.driver.MACHINE_FILES", (serial,))
    serial.write_text("1421022")
    first = gpu.identity()
    assert first == gpu.identity()
    serial.write_text("1421023")
    assert gpu.identity() != first
    assert CudaDevice("Orin", "01" * 16, "8.7", "12.6").identity() != gpu.identity()
