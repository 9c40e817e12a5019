"""The runtime on aarch64, emulated by qemu, beside this machine's: the same figures with the same ONNX Runtime.

No container and no chroot: Debian's Python for arm64 is unpacked, and qemu runs it.
"""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.aarch64.int8 import add_int8
from tests.architecture.environments import BUNDLE, PLATFORMS, run, wheel

SUITE, PYTHON = "bookworm", "3.11"
# qemu 7.2, bookworm's, crashes in ONNX Runtime 1.28 and later; both are the newest with a wheel for JetPack 6's Python.
PINNED = ("onnxruntime==1.23.2", "numpy==2.2.6")
PACKAGES = "dash,coreutils,base-passwd,libc-bin,python3,libpython3-stdlib,ca-certificates,libstdc++6,libgomp1"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
TOOLS = {"qemu-aarch64-static": "qemu-user-static", "mmdebstrap": "mmdebstrap"}
HOWEVER_FAR = 1e-5
"""Of fp32 logits."""

pytestmark = [pytest.mark.slow, pytest.mark.check]


@dataclass(frozen=True)
class Machine:
    """Runs Python programs with the runtime and what it needs; nothing else of `packages` is the other machine's."""

    python: tuple[str | Path, ...]
    packages: Path
    environment: dict[str, str]

    def run(self, *words):
        home = self.packages.parent
        return run([*self.python, *words], home, PYTHONPATH=str(self.packages), **self.environment)

    def edgeproof(self, *words):
        return self.run(self.packages / "bin" / "edgeproof", *words)

    def logits(self, bundle, images, out):
        done = self.run(Path(__file__).with_name("judge.py"), bundle, images, out)
        assert done.returncode == 0, done.stderr
        with np.load(out) as file:
            return dict(file)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"aarch64 is not emulated here; apt-get install {' '.join(missing)}")
    return tmp_path_factory.mktemp("aarch64")


@pytest.fixture(scope="module")
def package(home):
    return wheel(home)


@pytest.fixture(scope="module")
def native(home, package):
    return Machine((sys.executable,), install(home / "native", package), {})


@pytest.fixture(scope="module")
def emulated(home, package):
    root = home / "root"
    words = ["--arch=arm64", "--variant=extract", f"--hook-dir={MERGED_USR}", f"--include={PACKAGES}", SUITE, root]
    subprocess.run(["mmdebstrap", "--quiet", *words], check=True, timeout=300)
    wanted = [*PLATFORMS, "--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    python = ("qemu-aarch64-static", root / f"usr/bin/python{PYTHON}")
    return Machine(python, install(home / "emulated", package, *wanted), {"QEMU_LD_PREFIX": str(root)})


def install(target, package, *options):
    """Install the base dependencies into a directory; return it."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", target]
    done = run([*pip, *options, package, *PINNED], target.parent)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def bundle(home):
    add_int8(BUNDLE, home / "bundle")
    return home / "bundle"


@pytest.fixture(scope="module")
def images(home, bundle, native):
    """The evaluation images, and what was found against each precision natively: judged correctly, then broken."""
    with np.load(bundle / "evaluation.npz") as file:
        sets = {"clean": file["images"].astype(np.float32) / 255}
    for precision in ("fp32", "int8"):
        out = home / f"native-{precision}"
        done = native.edgeproof("verify", bundle, "--precision", precision, "--save-adversarial", "--out", out)
        assert done.returncode == 0, done.stderr
        with np.load(out / "evidence.npz") as file:
            assert (file["broken_by"] >= 0).any()
            sets[f"against-{precision}"] = file["adversarial"].astype(np.float32)
    np.savez(home / "images.npz", **sets)
    return home / "images.npz"


@pytest.fixture(scope="module")
def here(home, native, bundle, images):
    return native.logits(bundle, images, home / "native.npz")


@pytest.fixture(scope="module")
def there(home, emulated, bundle, images):
    return emulated.logits(bundle, images, home / "emulated.npz")


def of(precision, logits):
    return {name: z for name, z in logits.items() if name.startswith(precision)}


def test_the_machines_are_two(here, there):
    assert here["machine"] == platform.machine()
    assert there["machine"] == "aarch64"


def test_int8_logits_are_the_same_to_the_bit(here, there):
    assert (
        of("int8", here).keys() == of("int8", there).keys() == {"int8.clean", "int8.against-fp32", "int8.against-int8"}
    )
    for name, z in of("int8", here).items():
        assert np.ptp(z) > 1
        np.testing.assert_array_equal(z, there[name], err_msg=name)


def test_fp32_logits_are_the_same_within_1e_5(here, there):
    for name, z in of("fp32", here).items():
        apart = float(np.abs(z - there[name]).max())
        print(f"{name}: logits within {apart:.2g} in a range of {np.ptp(z):.3g}")
        assert apart <= HOWEVER_FAR, name


def test_adversarial_points_found_here_are_judged_alike_there(here, there):
    for name in here.keys() - {"machine"}:
        np.testing.assert_array_equal(here[name].argmax(1), there[name].argmax(1), err_msg=name)


# A gate that is reached, and one that is not.
@pytest.mark.parametrize(("precision", "gate", "code"), [("fp32", "20%", 0), ("int8", "99%", 1)])
def test_verify_ends_with_the_same_figures_there(home, emulated, bundle, images, precision, gate, code):
    out = home / f"emulated-{precision}"
    done = emulated.edgeproof("verify", bundle, "--precision", precision, "--fail-under", gate, "--out", out)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith("failed\n" if code else "passed\n")
    there, here = (json.loads((home / name / "report.json").read_text()) for name in (out.name, f"native-{precision}"))
    assert there["device"]["architecture"] == "aarch64"
    assert there["software"]["onnxruntime"] == here["software"]["onnxruntime"] == "1.23.2"
    assert there["clean"] == here["clean"]
    assert [row["name"] for row in there["attacks"]] == [row["name"] for row in here["attacks"]]
    # Last bits of a gradient decide the sign of a pixel where it is near 0, so a point near the border may differ.
    assert abs(there["robust_accuracy"]["value"] - here["robust_accuracy"]["value"]) <= 1 / here["data"]["n"]
