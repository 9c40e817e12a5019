from importlib.metadata import version

import pytest

from runtime import device
from runtime.progress import Lines


def test_the_machine_card_names_cpu_cores_system_and_python():
    card = device.machine_card()
    assert set(card) == {"cpu", "cores", "architecture", "system", "python"}
    assert card["cores"] >= 1
    assert card["cpu"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU\n", "Fast CPU"),
        ("processor\t: 0\nModel\t\t: NVIDIA Orin\n", "NVIDIA Orin"),
    ],
)
def test_the_cpu_is_what_the_kernel_calls_it(tmp_path, monkeypatch, text, name):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "cpuinfo")
    assert device.cpu_model() == name


def test_software_that_is_not_installed_is_left_out():
    assert device.software(["numpy", "no-such-package"]) == {"numpy": version("numpy")}


def test_progress_is_one_line_a_tenth(capsys):
    lines = Lines()
    lines.stage("pgd", 100)
    for _ in range(100):
        lines.advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"pgd: {done} of 100 images" for done in range(10, 101, 10)]
