"""What a board says of itself: on this machine, and on the trees of two Jetsons."""

import os
import platform
from importlib.metadata import version

import pynvml
import pytest

from runtime.machine.card import int8_overflows, machine_card, software
from runtime.machine.nvml import Gpu, first_gpu
from tests.runtime.machine.boards import ORIN, THOR, write_board


def no_gpu():
    return None


def test_the_card_of_this_machine_names_what_it_is_and_what_it_does_not_know():
    card = machine_card()
    assert (card["cores"], card["architecture"]) == (len(os.sched_getaffinity(0)), platform.machine())
    assert card["cpu"]
    assert card["memory"].endswith(" GiB")
    missing = card.get("not_found", "").split(", ")
    assert not card.keys() & set(missing)
    assert ("jetpack" in card) != ("jetpack" in missing)


def test_cores_are_those_of_the_machine_where_the_system_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine_card()["cores"] == os.cpu_count()


def test_an_orin_is_told_from_its_files(tmp_path):
    card = machine_card(write_board(tmp_path, ORIN), no_gpu)
    told = {name: card[name] for name in card if name not in ("system", "python", "cores", "architecture")}
    assert told == {
        "cpu": "ARMv8 Processor rev 1 (v8l)",
        "board": "NVIDIA Jetson AGX Orin Developer Kit",
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "tensorrt": "10.3.0",
        "cuda": "12.6.68",
        "gpu": "Orin, integrated (Ampere, compute capability 8.7)",
        "power_mode": "MODE_30W (2)",
        "gpu_clock": "306 to 1300.5 MHz",
        "cpu_clock": "729.6 to 2201.6 MHz",
        "memory": "61.4 GiB",
    }


def test_a_thor_is_told_from_its_files_and_what_a_container_does_not_see_is_named(tmp_path):
    card = machine_card(write_board(tmp_path, THOR), no_gpu)
    assert card["board"] == "NVIDIA Jetson AGX Thor Developer Kit"
    assert (card["l4t"], card["jetpack"]) == ("38.4.0", "7.1")
    assert card["gpu"] == "Thor, integrated (Blackwell, compute capability 11.0)"
    assert card["gpu_clock"] == "1575 MHz, pinned"
    assert card["power_mode"] == "1"  # its table is not there to name it
    assert card["not_found"] == "tensorrt, cuda"


@pytest.mark.parametrize(
    ("line", "release", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.0, GCID: 1", "36.4.0", "6.1"),
        ("# R36 (release), REVISION: 4.4, GCID: 1", "36.4.4", "6.2.1"),
        ("# R38 (release), REVISION: 2.1, GCID: 1", "38.2.1", "7.0"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "39.2.0", "7.2"),
        ("# R36 (release), REVISION: 40.1, GCID: 1", "36.40.1", None),
    ],
)
def test_a_release_of_jetson_linux_tells_its_jetpack(tmp_path, line, release, jetpack):
    card = machine_card(write_board(tmp_path, {"etc/nv_tegra_release": line}), no_gpu)
    assert card["l4t"] == release
    assert card.get("jetpack") == jetpack


def test_an_empty_machine_has_a_card_all_the_same(tmp_path):
    card = machine_card(tmp_path, no_gpu)
    assert card["not_found"].split(", ")[0] == "board"
    assert "memory" not in card


@pytest.mark.skipif(first_gpu() is not None, reason="NVML, which hides no GPU, finds one here")
def test_without_a_driver_there_is_no_gpu():
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlInit()
    assert first_gpu() is None


@pytest.fixture
def driver(monkeypatch):
    """NVML as a driver answers it, where this machine has none: of one GPU, which does not tell its power."""

    def unsupported(*arguments):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
        "nvmlSystemGetCudaDriverVersion": lambda: 13020,
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlDeviceGetName": lambda handle: "NVIDIA Thor",
        "nvmlDeviceGetPowerUsage": unsupported,
        "nvmlDeviceGetTemperature": lambda handle, sensor: 51,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: (
            pynvml.nvmlClocksThrottleReasonGpuIdle | pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
        ),
    }
    for name, answer in answers.items():
        assert hasattr(pynvml, name)
        monkeypatch.setattr(pynvml, name, answer)
    return first_gpu()


def test_what_nvml_says_comes_before_the_files_and_what_it_does_not_say_is_left_out(tmp_path, driver):
    assert isinstance(driver, Gpu)
    card = machine_card(write_board(tmp_path, ORIN), lambda: driver)
    assert (card["gpu"], card["driver"], card["cuda"]) == ("NVIDIA Thor", "580.1", "13.2")
    assert driver.watts() is None
    assert driver.celsius() == 51.0
    assert driver.throttles() == ("SwThermalSlowdown",)


def test_software_that_is_not_installed_is_left_out():
    assert software(["numpy", "no-such-package"]) == {"numpy": version("numpy")}


@pytest.mark.parametrize(
    ("line", "overflows"),
    [
        ("flags\t\t: fpu sse avx2", True),
        ("flags\t\t: fpu sse avx2 avx512f", True),
        ("flags\t\t: avx2 avx_vnni fsrm", False),
        ("flags\t\t: avx512f avx512_vnni avx512_bitalg", False),
        ("Features\t: fp asimd", False),
        ("", False),
    ],
)
def test_int8_sums_overflow_on_an_x86_cpu_without_vnni(line, overflows, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    assert int8_overflows(tmp_path) is overflows
