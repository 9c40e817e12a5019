"""The tiny bundle, its parts, and a finished run of it as fixtures."""

import json
import shutil

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from runtime.bundle.signing import Trust, fingerprint
from runtime.images.image_set import ImageSet
from runtime.machine import tf32
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.runtime.bundle.bundles import sign_bundle, write_bundle
from tests.runtime.tensorrt.driver import make_driver, make_libraries
from tests.tiny import bundle_files, linear_task


@pytest.fixture(autouse=True)
def gpu_not_used_yet(monkeypatch):
    """Begin as a process that has not used a GPU yet; call it to begin anew within a test."""

    def begin():
        monkeypatch.setenv(tf32.SWITCH, "")
        monkeypatch.setattr(tf32, "_settled", [])

    begin()
    return begin


@pytest.fixture
def task():
    return linear_task()


@pytest.fixture
def linear(task):
    weight, bias, images, labels = task
    return LinearSession(weight, bias), ImageSet("linear", images, labels, np.arange(len(labels)))


@pytest.fixture
def files(task):
    """The files of the tiny bundle; images are uint8."""
    return bundle_files(task)


@pytest.fixture
def bundle(tmp_path, files):
    return write_bundle(tmp_path / "bundle", files, n=60)


@pytest.fixture(scope="session")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def trust(key, tmp_path):
    return Trust(tmp_path / "public.pem", {fingerprint(key.public_key()): key.public_key()})


@pytest.fixture
def signed(bundle, key):
    return sign_bundle(bundle, key)


@pytest.fixture
def rewrite():
    """Change one field of a manifest in place, by its path of keys."""

    def change(bundle, *keys, value):
        path = bundle / "manifest.json"
        record = json.loads(path.read_text())
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(record))

    return change


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """Return a library path with the stand-in of the CUDA driver."""
    return make_driver(tmp_path_factory.mktemp("driver") / "lib")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """Return a Python path with the stand-ins of TensorRT and PyCUDA."""
    return make_libraries(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    """Where a run without --out leaves its directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    bundle = write_bundle(folder / "bundle", bundle_files(linear_task()), n=60)
    result = edgeproof("verify", bundle, "--out", folder / "run", "--save-adversarial", "--json")
    assert result.exit_code == 0, result.stderr
    return folder, result


@pytest.fixture
def finished(finished_once, tmp_path):
    """A finished run of the tiny bundle: its directory, a copy, and what it printed."""
    folder, result = finished_once
    return shutil.copytree(folder / "run", tmp_path / "run"), result


@pytest.fixture
def evidence(finished):
    with np.load(finished[0] / "evidence.npz", allow_pickle=False) as file:
        return dict(file)
