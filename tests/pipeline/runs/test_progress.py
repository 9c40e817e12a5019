"""What a training run says where nobody watches a bar."""

import errno
import io
import threading
import time

import pytest

from pipeline.models.checkpoint import Figures
from pipeline.runs import progress
from pipeline.runs.progress import TrainingLog
from pipeline.runs.state import Standing
from pipeline.tracking.trackers import Trackers

STANDING = Standing(parts=1, training_data="0" * 64, teacher=None)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "lines"), [(0.1, 1), (20.0, 2), (90.0, 6)])
def test_elsewhere_than_on_a_terminal_training_is_its_first_step_then_a_line_a_minute_and_one_an_epoch(
    clock, seconds, lines, tmp_path, capsys
):
    with TrainingLog(tmp_path, steps=12, steps_per_epoch=6, batch=64, standing=STANDING, trackers=Trackers()) as log:
        for number in range(1, 7):
            clock[0] += seconds
            log.step(number, loss=1.5, seconds=seconds)
        log.figures(Figures(epoch=1, n=10, clean=0.8, pgd=0.5))
    *steps, figures = capsys.readouterr().err.splitlines()
    assert len(steps) == lines
    assert figures == "epoch 1: hold-out clean 80.0 %, PGD-10 50.0 %"
    assert steps[0].startswith("epoch 1 step 1/12  loss 1.5000")
    if seconds == 90.0:
        assert steps[2] == "epoch 1 step 3/12  loss 1.5000  1 images/s, 13:30 left"


def test_before_the_first_step_the_bar_shows_no_figure_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    with TrainingLog(tmp_path, steps=12, steps_per_epoch=6, batch=64, standing=STANDING, trackers=Trackers()) as log:
        log._bar.refresh()
        before = terminal.getvalue()
        log.step(1, loss=1.5, seconds=1.0)
        log._bar.refresh()
    assert "0/12" in before
    assert "nan" not in before
    assert "images/s" not in before
    assert "loss 1.5000  64 images/s" in terminal.getvalue()


def test_a_full_disk_under_tensorboard_is_told_in_a_line_and_its_thread_prints_no_traceback(
    tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def steps(log):
        monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
        for number in range(1, 100):
            log.step(number, loss=1.0, seconds=0.1)
            time.sleep(0.05)

    before = threading.excepthook
    with (
        pytest.raises(OSError, match="No space left"),
        TrainingLog(tmp_path, steps=100, steps_per_epoch=100, batch=64, standing=STANDING, trackers=Trackers()) as log,
    ):
        steps(log)
    assert threading.excepthook is before
    told = capsys.readouterr().err
    assert "the log for TensorBoard is cut short: [Errno 28] No space left on device" in told
    assert "Traceback" not in told
