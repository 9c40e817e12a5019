"""Environments that hold what a device installs, and nothing else."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.paths import ROOT

BUNDLE = ROOT / "tests" / "data" / "tiny-bundle"
JETPACK_6 = ("manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
"""Wheels that run on Ubuntu 22.04 (glibc 2.35) on aarch64; the last one is also called manylinux2014."""
PLATFORMS = [word for tag in (*JETPACK_6, "manylinux2014_aarch64") for word in ("--platform", tag)]


def run(command, home, **more):
    """Run a program in `home`, without the environment that these tests run in; return the finished process."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=home, env=kept | more, capture_output=True, text=True, check=False, timeout=300)


def install(python, home):
    """Make a virtual environment with the base dependencies; return a function that runs one of its programs."""
    subprocess.run([python, "-m", "venv", home / "venv"], check=True)
    done = run([home / "venv/bin/python", "-m", "pip", "install", "--quiet", str(ROOT)], home)
    assert done.returncode == 0, done.stderr
    return lambda program, *arguments: run([home / "venv/bin" / program, *arguments], home)


def beside(distribution, home):
    """Install a wheel in an environment of its own, which sees the packages of this one; return where its programs lie.

    The wheel comes first, so that an editable installation in this environment is not what runs.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    target = home / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (target / "beside.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    pip = [sys.executable, "-m", "pip", "--python", home / "venv/bin/python"]
    done = run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", distribution], home)
    assert done.returncode == 0, done.stderr
    return home / "venv/bin"


def wheel(home):
    """Build this project's wheel into `home`; return its path."""
    done = run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", home, str(ROOT)], home)
    assert done.returncode == 0, done.stderr
    return next(home.glob("edgeproof-*.whl"))
