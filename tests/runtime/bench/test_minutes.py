"""A measurement over minutes, and after idling; with a clock of its own."""

import json
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.backends.table import BACKENDS
from runtime.bench.measure import bench
from runtime.bench.minutes import Minutes
from runtime.bench.record import PIPES
from runtime.commands.bench_table import print_bench
from runtime.images.image_set import ImageSet
from runtime.machine.sensors import Sample, find_sensors
from runtime.records.bench import load_bench
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.judges import JUDGE, OnlyJudges
from tests.paths import ROOT
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.machine.boards import ORIN, write_board
from tests.tiny import bundle_files, linear_task

JUDGES = ROOT / "examples" / "judges"


class Board(LinearSession):
    """Takes so many seconds for a query, by its own clock; after a pause, `cold` more."""

    def __init__(self, seconds, cold=0.0):
        weight, bias, images, labels = linear_task()
        super().__init__(weight, bias)
        self.images = ImageSet("some", images, labels, np.arange(len(labels)))
        self.seconds, self.cold, self.now, self.slept = seconds, cold, 0.0, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def logits(self, x):
        self.now += self.seconds(self.now) + (self.cold if self.slept else 0.0)
        return super().logits(x)


def measured(board, seconds, root, machine=dict, idle=0.0):
    return bench(
        board, board.images, 1, seconds=seconds, sensors=find_sensors(root, lambda: None), clock=board.clock,
        idle=idle, sleep=board.sleep, machine=machine,
    )  # fmt: skip


def test_a_board_that_slows_down_shows_it_in_its_minutes_and_in_their_ratio(tmp_path, caplog):
    caplog.set_level("INFO")
    run = measured(Board(lambda now: 0.25 if now < 70 else 0.5), 185.0, write_board(tmp_path, ORIN))
    assert [minute.p50 for minute in run.minutes] == [250.0, 500.0, 500.0]
    assert run.last_over_first == 2.0
    assert sum(minute.queries for minute in run.minutes) < run.queries, "the fourth minute was no whole one"
    assert run.minutes[0].celsius["tj-thermal"] == 48.5
    assert run.minutes[0].megahertz
    (line,) = (each.message for each in caplog.records if each.message.startswith("minute 1: "))
    assert "p50 250 ms, p90 250 ms, " in line
    assert line.endswith(" MHz")


def test_of_less_than_two_minutes_there_is_no_ratio_and_of_less_than_one_no_line(tmp_path, caplog):
    caplog.set_level("INFO")
    run = measured(Board(lambda now: 0.5), 3.0, tmp_path)
    assert (len(run.minutes), run.minutes[0].queries, run.last_over_first) == (1, 10, None)
    assert not caplog.records


def test_a_query_belongs_to_the_minute_in_which_it_ended_and_a_sample_to_its_own():
    said = []
    samples = [Sample(at=at, celsius={"chip": at}) for at in (0.0, 30.0, 60.0, 90.0, 250.0, 270.0)]
    minutes = Minutes(0.0, samples, said.append)
    for ended in (10.0, 60.0, 61.0, 250.0, 310.0):
        minutes.query(1.0, ended)
    assert [minute.queries for minute in minutes.all()] == [1, 2, 1]
    assert [minute.celsius["chip"] for minute in minutes.all()] == [15.0, 75.0, 260.0]
    assert len(said) == 3


def test_the_first_query_after_idling_is_timed_by_itself(tmp_path):
    board = Board(lambda now: 0.25, cold=1.0)
    run = measured(board, 2.0, tmp_path, idle=10.0)
    assert board.slept == [10.0]
    assert (run.after_idle_ms, run.idle_seconds) == (1250.0, 10.0)
    assert run.latency_ms.most == 250.0
    assert measured(Board(lambda now: 0.25), 2.0, tmp_path).after_idle_ms is None


@pytest.mark.parametrize(
    ("card", "locked", "said"),
    [
        (
            {"cpu_clock": "1344 MHz, pinned", "gpu_clock": "918 MHz, pinned", "power_mode": "MAXN (0)"}, True,
            "power mode MAXN (0), clocks locked",
        ),
        (
            {"cpu_clock": "729 to 1344 MHz", "gpu_clock": "918 MHz, pinned"}, False,
            "power mode unknown, clocks not locked",
        ),
        ({}, None, "power mode unknown, whether clocks are locked is unknown"),
    ],
)  # fmt: skip
def test_power_mode_and_whether_clocks_are_locked_are_said_once_where_they_did_not_change(
    card, locked, said, tmp_path, capsys
):
    run = measured(Board(lambda now: 0.5), 1.0, tmp_path, machine=lambda: card, idle=10.0)
    assert (run.clocks_locked, run.power_mode) == (locked, card.get("power_mode"))
    print_bench(SimpleNamespace(runs=[run, run], warnings=(), name="n", backend="ort", provider="cpu"))
    idling = "fp32, batch 1: 500 ms after 10 s of idling"
    assert capsys.readouterr().out.splitlines()[-4:-1] == [idling, idling, said]
    changed = run.model_copy(update={"power_mode": "15W"})
    print_bench(SimpleNamespace(runs=[run, changed], warnings=(), name="n", backend="ort", provider="cpu"))
    lines = capsys.readouterr().out.splitlines()[-3:-1]
    assert lines == [f"{idling}; {said}", f"{idling}; power mode 15W, {said.partition(', ')[2]}"]


def test_every_runner_of_the_table_is_measured_and_kept_by_itself(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, OnlyJudges.backend())
    bundle = write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    options = ("--on", f"ort:cpu,{JUDGE}", "--batch", "1,2", "--seconds", "0.01", "--idle", "0.01")
    result = edgeproof("bench", bundle, *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    for place, backend in (("ort-cpu", "ort"), ("tensorrt-tensorrt", "tensorrt")):
        kept = load_bench(tmp_path / "out" / place)
        assert kept.backend == backend
        assert [run.after_idle_ms is not None for run in kept.runs] == [True, False]
    assert "tiny on ort/cpu" in result.stdout
    assert "tiny on tensorrt/tensorrt" in result.stdout
    printed = json.loads(edgeproof("bench", bundle, *options, "--json").stdout)
    assert [each["backend"] for each in printed] == ["ort", "tensorrt"]


@pytest.mark.parametrize("on", [(), ("--on", "ort:cpu,command")])
def test_a_process_is_measured_and_its_pipes_are_said_to_be_part_of_it(on, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    judge = shlex.join([sys.executable, str(JUDGES / "run_onnxruntime.py"), str(bundle / "model.fp32.onnx")])
    options = (*on, "--judge-command", judge, "--batch", "1,2", "--seconds", "0.01", "--idle", "0")
    result = edgeproof("bench", bundle, *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    kept = load_bench(tmp_path / "out" / "command-process" if on else tmp_path / "out")
    assert (kept.backend, kept.provider) == ("command", "onnxruntime")
    assert [run.batch for run in kept.runs] == [1, 2]
    assert PIPES in kept.warnings
    assert result.stdout.count(PIPES) == 1
    assert "tiny on command/onnxruntime" in result.stdout


def test_how_the_machine_is_set_is_said_once_where_it_was_the_same(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    result = edgeproof("bench", bundle, "--batch", "1,2", "--seconds", "0.01", "--idle", "0")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("power mode") == 1


@pytest.mark.parametrize("options", [("--backend", "command"), ("--on", "ort:cpu,command")])
def test_a_backend_of_commands_without_one_is_refused(options, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    result = edgeproof("bench", bundle, *options)
    assert result.exit_code == 2
    assert "--judge-command" in result.stderr


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", bundle_files(linear_task()), n=60)
    out = tmp_path / "out"
    edgeproof("bench", bundle, "--batch", "1", "--seconds", "0.01", "--idle", "0", "--out", out)
    record = json.loads((out / "bench.json").read_text())
    for run in record["runs"]:
        for name in ("minutes", "after_idle_ms", "idle_seconds", "power_mode", "clocks_locked"):
            run.pop(name)
    (out / "bench.json").write_text(json.dumps(record))
    (run,) = load_bench(out).runs
    assert (run.minutes, run.last_over_first, run.clocks_locked) == ((), None, None)
