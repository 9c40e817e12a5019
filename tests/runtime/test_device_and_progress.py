import re
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

from runtime import device, progress
from runtime.attacks import ATTACKS
from runtime.images import ImageSet
from runtime.progress import Lines, Pace, Silent
from runtime.suite import run_suite
from runtime.units import Target
from tests.fakes import LinearSession


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


@pytest.mark.parametrize("batch", [1, 500])
@pytest.mark.parametrize(("name", "steps"), [("square", [64, 64, 2]), ("fgsm", [130])])
def test_progress_of_an_attack_of_many_passes_moves_every_64_images_whatever_the_batch(monkeypatch, name, steps, batch):
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 2, "p": 0.8}))
    images = ImageSet("grey", np.full((130, 1, 4, 4), 0.5, np.float32), np.zeros(130, int), np.arange(130))
    session = LinearSession(np.eye(3, 16, dtype=np.float32), np.float32([9, 0, 0]))
    moves = {}

    class Recorder(Silent):
        def stage(self, name, total):
            self.moved = moves.setdefault(name, [])

        def advance(self, count, *, fresh=True):
            self.moved.append(count)

    run_suite(Target(session, images, 3, batch), [name], eps=0.01, seed=0, keep_all=False, progress=Recorder())
    assert moves[name] == steps
    assert moves["clean"] == [130]
