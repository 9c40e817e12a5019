"""Which driver, CUDA runtime and cuDNN a figure hangs on: of the libraries that are loaded, built here in C."""

import subprocess

import pytest

from runtime.machine.cuda import accelerator, gpu_software
from tests.runtime.tensorrt.driver import compiler

OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build  (dvs-builder)
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54  Tue Jun  6 22:20:39 UTC 2023\n"
ORIN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.3.0  Release Build\n"


def with_driver(root, text):
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").write_text(text)
    return root


def library(place, name, code):
    """Build a library of one function."""
    place.mkdir(parents=True, exist_ok=True)
    source = place / "source.c"
    source.write_text(code)
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", place / name, source], check=True)
    return place / name


def cudart(place, number, name="libcudart.so.12"):
    return library(place, name, f"int cudaRuntimeGetVersion(int *version) {{ *version = {number}; return 0; }}")


def cudnn(place, number, name="libcudnn.so.9"):
    return library(place, name, f"unsigned long cudnnGetVersion(void) {{ return {number}; }}")


def loaded(root, *paths):
    """Write what the kernel says of a process that has loaded these, each in two places of its memory."""
    (root / "proc/self").mkdir(parents=True)
    lines = [
        f"7f51f3c4b000-7f51f3cde000 {mode} 00000000 08:01 1234                       {path}"
        for path in ("[heap]", "/usr/lib/libc.so.6", *paths)
        for mode in ("r--p", "r-xp")
    ]
    (root / "proc/self/maps").write_text("\n".join([*lines, "7ffdb4e5a000-7ffdb4e7b000 rw-p 00000000 00:00 0"]))
    return root


@pytest.mark.parametrize(("text", "version"), [(OPEN, "580.159.03"), (CLOSED, "535.54"), (ORIN, "540.3.0")])
def test_the_driver_is_the_kernels(tmp_path, text, version):
    assert gpu_software(with_driver(tmp_path, text)) == {"driver": version}


@pytest.mark.parametrize(("number", "version"), [(12060, "12.6"), (13000, "13.0"), (11080, "11.8")])
def test_the_cuda_runtime_is_the_one_that_is_loaded(tmp_path, number, version):
    assert gpu_software(loaded(tmp_path, cudart(tmp_path / "lib", number))) == {"cuda_runtime": version}


@pytest.mark.parametrize(("number", "version"), [(91002, "9.10.2"), (90100, "9.1.0"), (8907, "8.9.7")])
def test_cudnn_is_the_one_that_is_loaded(tmp_path, number, version):
    assert gpu_software(loaded(tmp_path, cudnn(tmp_path / "lib", number))) == {"cudnn": version}


def test_of_several_all_are_said_also_those_that_a_wheel_renamed(tmp_path):
    paths = [
        cudart(tmp_path / "one", 12060),
        cudart(tmp_path / "with a space", 13000, "libcudart-9335f6a2.so.13"),
        cudnn(tmp_path / "one", 91002),
        cudnn(tmp_path / "one", 90000, "libcudnn_graph.so.9"),
    ]
    assert gpu_software(loaded(tmp_path, *paths)) == {"cuda_runtime": "12.6, 13.0", "cudnn": "9.10.2"}


def test_what_is_not_there_any_more_or_says_nothing_is_left_out(tmp_path):
    silent = library(tmp_path / "lib", "libcudnn.so.9", "int other(void) { return 0; }")
    assert gpu_software(loaded(tmp_path, silent, tmp_path / "lib/libcudart.so.12")) == {}
    assert gpu_software(tmp_path / "nowhere") == {}


def test_of_a_cpu_nothing_is_said_but_that(tmp_path):
    root = with_driver(loaded(tmp_path, cudart(tmp_path / "lib", 12060)), OPEN)
    assert accelerator("cpu", root) == {"accelerator": "cpu"}
    assert accelerator("H200", root) == {"accelerator": "H200", "driver": "580.159.03", "cuda_runtime": "12.6"}
