"""What a run says of its progress on a terminal and elsewhere."""

import re
from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.images.image_set import ImageSet
from runtime.suite.campaign import run_suite
from runtime.suite.units import Target
from runtime.terminal import progress
from runtime.terminal.progress import Lines, Pace, Silent
from tests.fakes import LinearSession, planned


def test_elsewhere_than_on_a_terminal_a_stage_is_one_line_at_its_end(capsys):
    lines = Lines()
    lines.stage("pgd", 100)
    for _ in range(100):
        lines.advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"pgd: 100 of 100 images, .* images/s, 0:00 left\n", err)


def test_a_stage_that_takes_its_time_is_a_line_a_minute_also_within_a_unit(capsys):
    with Lines(every=0.001) as lines:
        lines.stage("pgd", 100)
        lines.advance(64, fresh=False)
        said = ""
        while said.count("\n") < 3:
            said += capsys.readouterr().err
        lines.advance(36)
    assert all(re.fullmatch("pgd: (0|64) of 100 images(, from before)?", line) for line in said.splitlines())
    assert capsys.readouterr().err.splitlines()[-1].startswith("pgd: 100 of 100 images")


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

    target = Target(session, images, 3, batch)
    run_suite(target, planned(target, [name]), eps=0.01, seed=0, keep_all=False, progress=Recorder())
    assert moves[name] == steps
    assert moves["clean"] == [130]
