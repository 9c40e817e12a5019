"""The Pythons of devices: JetPack 6 has 3.10, JetPack 7 has 3.12."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.environments import BUNDLE, PLATFORMS, install, run, wheel

pytestmark = pytest.mark.slow


def find_python(version):
    """Return a Python of this version that works, in the path or under pyenv; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for python in filter(None, candidates):
        # A shim of pyenv lies in the path and refuses.
        if subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.mark.parametrize("version", [pytest.param("3.10", marks=pytest.mark.check), "3.12", "3.13"])
def test_the_base_installation_judges_a_bundle_on(version, tmp_path):
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    edgeproof = install(python, tmp_path)
    assert edgeproof("python", "--version").stdout.startswith(f"Python {version}.")
    result = edgeproof("edgeproof", "verify", BUNDLE, "--out", tmp_path / "report")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("passed\n")


# pip reads the markers of requirements for the Python that runs it, so that the range of JetPack 6 is said by hand.
@pytest.mark.parametrize(("version", "bindings"), [("3.10", "12.9"), ("3.12", "13")], ids=["3.10", "3.12"])
def test_everything_that_the_device_image_installs_has_a_wheel_for_aarch64_and(version, bindings, tmp_path):
    requirement = f"{wheel(tmp_path)}[report,onnx,jetson]"
    wanted = [*PLATFORMS, "--python-version", version, "--implementation", "cp", "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--target", tmp_path / "none"]
    result = run([*pip, *wanted, requirement, "onnxruntime==1.23.2", f"cuda-bindings=={bindings}.*"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert "onnxruntime-1.23.2" in result.stdout
    assert f"cuda-bindings-{bindings}." in result.stdout
