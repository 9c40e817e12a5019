import re
from importlib.metadata import version

import pytest

from runtime import device, progress
from runtime.progress import Lines, Pace


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
    lines = err.splitlines()
    assert [line.partition(", ")[0] for line in lines] == [f"pgd: {done} of 100 images" for done in range(10, 101, 10)]
    assert all(re.fullmatch(r".* images/s, 0:00 left", line) for line in lines)


def test_the_rate_counts_what_this_process_did_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    pace = Pace(8000)
    pace.advance(1000, fresh=False)
    assert str(pace) == ""
    clock[0] = 10.0
    pace.advance(1000, fresh=True)
    assert str(pace) == "100 images/s, 1:00 left"
    clock[0] = 1010.0
    assert str(pace) == "1.0 images/s, 1:41:00 left"
