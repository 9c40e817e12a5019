"""Measuring with a clock of its own, and the command with the real one."""

import json
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from runtime.backends.ort import OrtSession
from runtime.bench.measure import MIN_QUERIES, bench, draw, time_queries
from runtime.bench.percentiles import bound_of_quantile, latency
from runtime.bench.record import warnings
from runtime.commands.bench_table import print_bench
from runtime.errors import BadData, BadModel, OutOfMemory
from runtime.machine.sensors import find_sensors
from runtime.records.bench import BENCH, load_bench
from tests.command_line import edgeproof
from tests.runtime.machine.boards import DIRECTORY, ORIN, THOR, write_board


class Clock:
    """Seconds that pass when something says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def take(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def taking(clock, seconds):
    """An artifact that needs so many seconds for each query in turn, the last for ever."""
    durations = iter(seconds)
    return lambda query: clock.take(next(durations))


def test_queries_follow_until_both_time_and_number_are_reached(clock):
    timed = time_queries(taking(clock, repeat(0.3)), repeat(None), seconds=1.0, at_least=2, clock=clock)
    assert timed.latencies == pytest.approx([0.3] * 4)
    timed = time_queries(taking(clock, repeat(5.0)), repeat(None), seconds=1.0, at_least=3, clock=clock)
    assert len(timed.latencies) == 3


def test_what_it_takes_to_prepare_a_query_is_no_latency(clock):
    def slow_to_prepare():
        while True:
            clock.take(10.0)
            yield None

    timed = time_queries(taking(clock, repeat(0.5)), slow_to_prepare(), seconds=30.0, at_least=1, clock=clock)
    assert timed.latencies == pytest.approx([0.5] * 3)
    assert timed.ended - timed.began == pytest.approx(31.5)


def test_percentiles_are_measured_values_at_loadgens_places():
    found = latency(np.random.default_rng(0).permutation(np.arange(1.0, 101.0)))
    assert (found.least, found.p50, found.p90, found.p99, found.most) == (1.0, 51.0, 91.0, 100.0, 100.0)
    assert found.mean == 50.5
    assert latency(np.array([7.0])).p99 == 7.0


def test_the_bound_of_a_percentile_needs_44_queries_and_covers_it_99_times_in_100():
    assert bound_of_quantile(43, 0.9, 0.99) is None
    assert bound_of_quantile(44, 0.9, 0.99) == 43
    random, n, rounds = np.random.default_rng(0), 200, 20_000
    place = bound_of_quantile(n, 0.9, 0.99)
    covered = np.mean(np.sort(random.random((rounds, n)), axis=1)[:, place] >= 0.9)
    tighter = np.mean(np.sort(random.random((rounds, n)), axis=1)[:, place - 1] >= 0.9)
    assert covered >= 0.99 - 3 * np.sqrt(0.99 * 0.01 / rounds)
    assert tighter < 0.99 + 3 * np.sqrt(0.99 * 0.01 / rounds)
    assert 900_000 < bound_of_quantile(10**6, 0.9, 0.99) < 901_000


def test_images_are_drawn_from_the_set_the_same_every_time(linear):
    _, images = linear
    first, again = draw(images, 4), draw(images, 4)
    drawn = [next(first) for _ in range(3)]
    assert drawn[0].shape == (4, 1, 4, 4)
    assert drawn[0].dtype == np.float32
    assert all(np.array_equal(x, next(again)) for x in drawn)
    known = {image.tobytes() for image in images.as_float(np.arange(len(images)))}
    assert {image.tobytes() for x in drawn for image in x} <= known


def measured(linear, clock, board, batch=2, seconds=2.0):
    session, images = linear
    answer = session.logits

    def logits(x):
        clock.take(0.125)
        return answer(x)

    session.logits = logits
    return bench(session, images, batch, seconds=seconds, sensors=find_sensors(board, lambda: None), clock=clock)


def test_a_run_has_latency_throughput_energy_and_heat(linear, clock, tmp_path):
    run = measured(linear, clock, write_board(tmp_path, ORIN))
    assert (run.queries, run.seconds, run.batch) == (16, 2.0, 2)
    assert (run.latency_ms.p50, run.latency_ms.p99) == (125.0, 125.0)
    assert run.images_per_second == 16.0
    assert run.power.of == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    assert run.power.watts == pytest.approx(10.7)
    assert run.power.joules_an_image == pytest.approx(10.7 / 16)
    assert run.celsius["tj-thermal"].most == 48.5
    assert run.throttled == ()
    assert run.rules.model_dump() == {"scenario": "Offline", "seconds": False, "samples": False}


def test_a_run_that_throttled_says_so(linear, clock, tmp_path):
    run = measured(linear, clock, write_board(tmp_path, THOR))
    assert run.throttled == ("devfreq-gpu-gpc-0", "gpu-throttle-alert")
    (warning,) = warnings([run], find_sensors(tmp_path, lambda: None))
    assert "fp32 at batch 2: throttled by devfreq-gpu-gpc-0, gpu-throttle-alert" in warning


def test_mlperfs_conditions_are_told_apart(linear, clock, tmp_path):
    run = measured(linear, clock, tmp_path, batch=1, seconds=600.0)
    assert run.rules.model_dump() == {"scenario": "SingleStream", "seconds": True, "samples": True}
    assert run.power is None


def test_of_power_that_is_only_a_part_no_energy_is_told_and_why(linear, clock, tmp_path):
    part = {
        "hwmon0/name": "ina3221",
        "hwmon0/in1_label": "RAIL_A",
        "hwmon0/in1_input": "5000",
        "hwmon0/curr1_input": "9",
    }
    board = write_board(tmp_path, {f"sys/class/hwmon/{name}": text for name, text in part.items()})
    run = measured(linear, clock, board)
    assert (run.power.watts, run.power.joules_an_image) == (None, None)
    (warning,) = warnings([run], find_sensors(board, lambda: None))
    assert warning.startswith("energy per image was not measured: only RAIL_A is")


COUNTER = "sys/class/powercap/intel-rapl:0"
WITHOUT_POWER = {
    "nothing there": ({}, "no INA or RAPL sensor is visible here, and no GPU that NVML knows"),
    "not this user": (
        {f"{COUNTER}/name": "package-0", f"{COUNTER}/energy_uj": DIRECTORY},  # an error to read, as for all but root
        "only root may read this machine's RAPL counters (package-0)",
    ),
    "no answer": ({"sys/class/hwmon/hwmon0/name": "ina238"}, "no sensor answered (VIN)"),
}


@pytest.mark.parametrize(("files", "says"), WITHOUT_POWER.values(), ids=WITHOUT_POWER)
def test_why_power_was_not_measured_is_told_apart(linear, clock, tmp_path, files, says):
    run = measured(linear, clock, write_board(tmp_path, files))
    (warning,) = warnings([run], find_sensors(tmp_path, lambda: None))
    assert warning.startswith(f"power was not measured: {says}")


def test_the_command_measures_every_precision_at_every_batch_and_keeps_it(bundle, tmp_path):
    out = tmp_path / "out"
    result = edgeproof("bench", bundle, "--batch", "1, 7", "--seconds", "0.02", "--idle", "0", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    kept = load_bench(out)
    assert json.loads(result.stdout) == json.loads((out / BENCH).read_text())
    assert [(run.precision, run.batch) for run in kept.runs] == [("fp32", 1), ("fp32", 7)]
    for run in kept.runs:
        assert run.queries >= MIN_QUERIES
        assert run.latency_ms.least <= run.latency_ms.p50 <= run.latency_ms.p90 <= run.latency_ms.p99
    assert kept.device["cpu"]
    assert kept.software["onnxruntime"]
    assert kept.data == "tiny/test"


def test_no_figure_is_kept_of_answers_that_a_session_does_not_stand_by(bundle, tmp_path, monkeypatch):
    def confirm(session):
        raise BadModel("a CUDA graph answers otherwise", hint="report it")

    monkeypatch.setattr(OrtSession, "confirm", confirm)
    result = edgeproof("bench", bundle, "--batch", "3", "--seconds", "0.01", "--out", tmp_path / "run")
    assert result.exit_code == 3, result.stderr
    assert "a CUDA graph answers otherwise" in result.stderr
    assert not (tmp_path / "run" / BENCH).exists()


def test_the_table_names_every_run_and_where_it_is_kept(bundle, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("{}")  # beside a report
    result = edgeproof("bench", bundle, "--batch", "3", "--seconds", "0.01", "--idle", "0", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].split()[:2] == ["fp32", "3"]
    assert f"bench: {tmp_path / 'run' / BENCH}" in result.stdout
    assert f"edgeproof report {tmp_path / 'run'} " in result.stdout
    assert "fp32, batch 3: 0.01 s" in result.stderr


@pytest.mark.parametrize("batch", ["0", "1,-2", "x", "", "1,,2"])
def test_a_list_of_batches_that_is_none_is_a_usage_error(bundle, batch):
    result = edgeproof("bench", bundle, "--batch", batch)
    assert (result.exit_code, "is not a list of batch sizes" in result.stderr) == (2, True)


def test_a_precision_that_the_bundle_lacks_is_told(bundle):
    result = edgeproof("bench", bundle, "--precision", "int8", "--seconds", "0.01", "--idle", "0")
    assert (result.exit_code, "it has: fp32" in result.stderr) == (3, True)


def test_a_precision_that_the_bundle_lacks_is_told_before_another_is_measured(bundle, tmp_path):
    result = edgeproof(
        "bench", bundle, "--precision", "fp32,nope", "--seconds", "0.01", "--idle", "0", "--out", tmp_path / "run"
    )
    assert (result.exit_code, "has no precision 'nope'" in result.stderr) == (3, True)
    assert "batch" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_what_was_measured_is_kept_where_a_later_measurement_fails(bundle, tmp_path, monkeypatch):
    def out_of_memory(session, images, batch, **how):
        if batch == 7:
            raise OutOfMemory("so many images do not fit")
        return bench(session, images, batch, **how)

    monkeypatch.setattr("runtime.commands.bench.measure", out_of_memory)
    result = edgeproof("bench", bundle, "--batch", "1,7", "--seconds", "0.01", "--idle", "0", "--out", tmp_path / "run")
    assert result.exit_code == 4
    assert [run.batch for run in load_bench(tmp_path / "run").runs] == [1]


def test_a_text_in_the_table_is_no_markup_and_moves_no_cursor(linear, clock, tmp_path, capsys):
    wild, run = "[/x][red]\x1b[2J", measured(linear, clock, tmp_path)
    with pytest.raises(ValidationError, match="precision"):
        run.model_copy(update={"precision": wild})
    print_bench(SimpleNamespace(runs=[run], warnings=(wild,), name="n", backend="ort", provider="cpu"))
    said = capsys.readouterr().out
    assert "[/x][red]?" in said
    assert "\x1b" not in said


def test_a_damaged_bench_file_is_refused(tmp_path):
    assert load_bench(tmp_path) is None
    (tmp_path / BENCH).write_text('{"schema": "edgeproof.bench/1"}')
    with pytest.raises(BadData, match=r"bench\.json: name"):
        load_bench(tmp_path)
