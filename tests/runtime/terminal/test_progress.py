"""What a run says of its progress on a terminal and elsewhere."""

import re
from dataclasses import replace

import numpy as np
import pytest

from runtime.attacks import ATTACKS
from runtime.attacks.passes import Headway, Passes
from runtime.images.image_set import ImageSet
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal import progress
from runtime.terminal.progress import Lines, Pace, Silent
from tests.fakes import LinearSession, planned


def test_elsewhere_than_on_a_terminal_a_stage_is_one_line_at_its_end(capsys):
    lines = Lines()
    lines.stage("pgd", 100)
    for _ in range(1000):
        lines.advance(0.1)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"pgd: 100 images in \d+\.\d s\n", err)


def test_a_stage_that_takes_its_time_is_lines_also_within_a_unit(capsys):
    with Lines(every=0.001) as lines:
        lines.stage("pgd", 100)
        lines.advance(64, fresh=False)
        said = ""
        while said.count("\n") < 3:
            said += capsys.readouterr().err
        lines.advance(36)
    assert all(re.fullmatch("pgd: (0|64) % of 100 images", line) for line in said.splitlines())
    assert capsys.readouterr().err.splitlines()[-1].startswith("pgd: 100 images in ")


def test_lines_come_ever_more_seldom_down_to_one_a_minute(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    class Seconds:
        """An event that is set after 300 seconds, of which each wait is one."""

        def wait(self, seconds):
            clock[0] += seconds
            if said := capsys.readouterr().err:
                times.append((clock[0] - seconds, said))
            return clock[0] > 300

    times = []
    lines = Lines()
    lines.stage("square", 10)
    lines._ended = Seconds()
    lines._beat()
    assert [when for when, _ in times] == [5, 15, 35, 75, 135, 195, 255]
    assert {said for _, said in times} == {"square: 0 % of 10 images\n"}


def test_the_rate_counts_what_this_process_did_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    pace = Pace(8000)
    pace.advance(1000, fresh=False)
    assert str(pace) == "12 % of 8000 images"
    clock[0] = 10.0
    pace.advance(1000, fresh=True)
    assert str(pace) == "25 % of 8000 images, 1:00 left"
    clock[0] = 1010.0
    assert str(pace) == "25 % of 8000 images, 1:41:00 left"


@pytest.mark.parametrize(("done", "said"), [(0.003, "0.03 %"), (0.32, "3.2 %"), (3.2, "32 %")])
def test_little_is_seen_to_move_too(done, said):
    pace = Pace(10)
    pace.advance(done, fresh=True)
    assert str(pace).startswith(f"{said} of 10 images, ")


def test_a_stage_that_an_earlier_process_did_has_no_time(capsys):
    lines = Lines()
    lines.stage("pgd", 100)
    lines.advance(100, fresh=False)
    assert capsys.readouterr().err == "pgd: 100 images from before\n"


class Recorder(Silent):
    """Keeps by how much each stage moved, in turn."""

    def __init__(self):
        self.totals, self.moves = {}, {}

    def stage(self, name, total):
        self.totals[name], self.moved = total, self.moves.setdefault(name, [])

    def advance(self, count, *, fresh=True):
        self.moved.append(count)


def followed(monkeypatch, session, names, *, n=130, batch=64, eps=0.01):
    """What a run of these attacks tells of its progress, Square by 20 queries."""
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 20, "p": 0.8}))
    images = ImageSet("grey", np.full((n, 1, 4, 4), 0.5, np.float32), np.zeros(n, int), np.arange(n))
    target, recorder = Target(session, images, 3, batch), Recorder()
    run_suite(target, planned(target, names), eps=eps, seed=0, keep_all=False, progress=recorder)
    return recorder


@pytest.mark.parametrize("batch", [1, 500])
def test_progress_moves_with_the_passes_and_ends_at_all_images(monkeypatch, batch):
    session = LinearSession(np.eye(3, 16, dtype=np.float32), np.float32([9, 0, 0]))
    told = followed(monkeypatch, session, ["fgsm", "pgd", "square"], batch=batch)
    for name, total in told.totals.items():
        assert sum(told.moves[name]) == pytest.approx(total, abs=1e-9), name
    assert {name: len(told.moves[name]) for name in ("clean", "fgsm", "pgd")} == {"clean": 1, "fgsm": 1, "pgd": 10}
    assert len(told.moves["square"]) == 3 * 20  # units of 64, 64 and 2 images, 20 queries each
    assert told.moves["square"][:20] == pytest.approx([64 / 20] * 20)


def test_an_image_that_has_fallen_is_no_work_any_more():
    """Five of ten images fall at once; the others have had 5 of 10 passes: 30 are made, 25 are left."""
    told = []
    headway = Headway(10, Passes(gradients=10), told.append)
    headway.asked(np.arange(10), gradient=True)
    for _ in range(4):
        headway.asked(np.arange(5), gradient=True)
    assert sum(told) == pytest.approx(10 * 30 / (30 + 5 * 5))
    headway.asked(np.arange(5), gradient=False)
    assert sum(told) == pytest.approx(10 * 30 / (30 + 5 * 5))
    headway.end()
    assert sum(told) == pytest.approx(10)
