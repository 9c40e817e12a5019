"""What a device does to a long run, for real: no disk, no bundle, another clock, no memory. Nothing is lost."""

import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from runtime import words
from runtime.batches.halving import BatchHalving
from runtime.bundle.manifest import EVALUATION
from runtime.errors import OutOfMemory
from runtime.records.report import load_report
from runtime.verdict.case import LARGEST_BATCH
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.paths import ROOT
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.mounts import read_only, tmpfs
from tests.runtime.verdict.long_run import (
    COMMAND,
    OPTIONS,
    assert_same,
    go_on,
    lines,
    pause,
    start,
    wait_for_line,
    whole_run,
)
from tests.tiny import FORWARD, bundle_files, graph, linear_task, npz


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("hazards"))


def resume(place, out):
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", out, "--resume")
    assert result.exit_code == 0, result.stderr
    assert_same(out, place / "whole")


def fill(disk):
    """Take all that is free."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.slow
@pytest.mark.check
def test_a_disk_that_fills_up_ends_a_run_with_its_reason_and_it_goes_on_when_there_is_space(place, tmp_path):
    with tmpfs(tmp_path / "disk", 2**22) as disk:
        out = disk / "run"
        with start(place, out) as process:
            pause(process, out, 4)
            fill(disk)
            said = go_on(process)
        assert process.returncode == 4
        assert "No space left on device" in said
        assert f" --out {out} --resume\n" in said.partition("finished work is saved; to resume: edgeproof verify ")[2]
        assert "Traceback" not in said
        done = lines(out)
        assert done >= 4
        (disk / "filler").unlink()
        assert not list((out / "units").glob(".*"))  # nothing half-written
        resume(place, out)


def test_a_disk_that_is_full_from_the_start_holds_no_begun_run(place, tmp_path):
    with tmpfs(tmp_path / "disk", 2**16) as disk:
        (disk / "run").mkdir()
        fill(disk)
        result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", disk / "run")
        assert (result.exit_code, "No space left on device" in result.stderr) == (4, True), result.stderr
        assert "hint: free some space" in result.stderr
        (disk / "filler").unlink()
        assert list((disk / "run").iterdir()) == []


@pytest.mark.slow
def test_a_volume_that_turns_read_only_ends_a_run_with_its_reason(place, tmp_path):
    out = tmp_path / "volume" / "run"
    out.parent.mkdir()
    with start(place, out) as process:
        pause(process, out, 3)
        with read_only(out.parent):
            said = go_on(process)
            assert process.returncode == 4
            assert "Read-only file system" in said
            assert "hint: choose a place that can be written to" in said
            refused = edgeproof("verify", place / "bundle", *OPTIONS, "--out", out, "--resume")
            assert (refused.exit_code, "Read-only file system" in refused.stderr) == (4, True)
    resume(place, out)


@pytest.mark.slow
def test_a_bundle_that_vanishes_is_no_longer_needed(place, tmp_path):
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    with start(tmp_path, tmp_path / "run") as process:
        pause(process, tmp_path / "run", 2)
        shutil.rmtree(tmp_path / "bundle")
        said = go_on(process)
    assert process.returncode == 0, said
    assert_same(tmp_path / "run", place / "whole")


@pytest.mark.slow
def test_a_bundle_that_has_vanished_before_a_run_goes_on_is_a_typed_error_and_the_run_is_kept(place, tmp_path):
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    with start(tmp_path, tmp_path / "run") as process:
        wait_for_line(process, tmp_path / "run", 2)
        process.kill()
    (tmp_path / "bundle" / "model.fp32.onnx").unlink()
    result = edgeproof("verify", tmp_path / "bundle", *OPTIONS, "--out", tmp_path / "run", "--resume")
    assert (result.exit_code, "model.fp32.onnx is listed in the manifest but missing" in result.stderr) == (3, True)
    shutil.rmtree(tmp_path / "bundle")
    result = edgeproof("verify", tmp_path / "bundle", *OPTIONS, "--out", tmp_path / "run", "--resume")
    assert (result.exit_code, "does not exist" in result.stderr) == (2, True)
    resume(place, tmp_path / "run")


class Jumping(datetime):
    """A wall clock that goes back ten years whenever somebody looks at it."""

    years = 2060

    @classmethod
    def now(cls, tz=None):
        cls.years -= 10
        return datetime(cls.years, 1, 1, tzinfo=tz)


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_figure_and_no_duration(place, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "datetime", Jumping)
    out = tmp_path / "run"
    with start(place, out) as process:
        wait_for_line(process, out, 2)
        process.kill()
    resume(place, out)
    assert Jumping.years < 2060
    report = load_report(out)
    assert 0 < report.seconds < 600
    assert all(0 <= row.seconds < 600 for row in report.attacks)


def test_no_duration_is_taken_from_a_clock_that_can_jump():
    runtime = ROOT / "runtime"
    wall = re.compile(r"\btime\.time\(|\.utcnow\(|\.now\([^)]*\) *-")
    assert [path.name for path in runtime.rglob("*.py") if wall.search(path.read_text())] == []


@pytest.mark.slow
@pytest.mark.check
def test_process_1_of_a_container_ends_by_sigterm_within_the_unit(place, tmp_path):
    """Process 1 of a PID namespace gets no signal that it does not handle: without ours, docker stop would kill."""
    if subprocess.run(["unshare", "--fork", "--pid", "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace can be made here")
    out = tmp_path / "run"
    with start(place, out, command=["unshare", "--fork", "--pid", "--kill-child", *COMMAND]) as process:
        wait_for_line(process, out, 2)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert f" --out {out} --resume\n" in said.partition("to resume: edgeproof verify ")[2]
    resume(place, out)


PER_IMAGE = 2**24
"""Bytes that an image takes on its way through the wide graph."""
WIDE = (
    FORWARD.replace("flat = Flatten(input)", "thin = Flatten(input)\n  column = Unsqueeze(thin, last)\n"
    "  wide = Expand(column, width)\n  flat = ReduceMean<keepdims = 0>(wide, last)")
    .replace("=> (float[B, K] logits) {",
    f"=> (float[B, K] logits)\n<int64[1] last = {{2}}, int64[3] width = {{1, 1, {PER_IMAGE // 64}}}> {{")
)  # fmt: skip
STARVED = """
import resource, sys, threading
from pathlib import Path
from runtime.cli import main
from runtime.verdict.case import Case

attack = Case.attack

def starved(case, *arguments, **options):
    '''Attack with so many bytes more than there are by then, every thread started: a thread needs some too.'''
    for graph in (case.subject.session._forward, case.subject.session._gradient):
        all_there = threading.Barrier(graph._workers + 1)
        for _ in range(graph._workers):
            graph._pool.submit(all_there.wait)
        all_there.wait()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    found = attack(case, *arguments, **options)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return found

Case.attack = starved
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A bundle whose images need 16 MiB each on their way, and its run with enough memory."""
    place = tmp_path_factory.mktemp("wide")
    weight, bias, images, labels = linear_task(n=64)
    stored = npz(images=np.round(images * 255).astype(np.uint8), labels=labels, ids=np.arange(64))
    files = {**bundle_files((weight, bias, images, labels)), "model.fp32.onnx": graph(WIDE, weight, bias)}
    write_bundle(place / "bundle", {**files, EVALUATION: stored}, n=64)
    result = edgeproof("verify", place / "bundle", "--attacks", "fgsm", "--out", place / "whole")
    assert result.exit_code == 0, result.stderr
    return place


def starved(wide, out, megabytes):
    command = ["verify", str(wide / "bundle"), "--attacks", "fgsm", "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-c", STARVED, str(megabytes * 2**20), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.check
def test_where_memory_runs_out_the_batch_is_halved_and_the_verdict_is_the_same(wide, tmp_path):
    result = starved(wide, tmp_path / "run", 480)
    assert result.returncode == 0, result.stderr
    assert "memory ran out with batches of 64; continuing with 32, which changes no verdict" in result.stderr
    report, whole = load_report(tmp_path / "run"), load_report(wide / "whole")
    assert report.device[LARGEST_BATCH] in (1, 2, 4, 8, 16, 32)
    assert LARGEST_BATCH not in whole.device
    assert (report.verdict, report.clean) == (whole.verdict, whole.clean)
    assert (tmp_path / "run" / "evidence.npz").read_bytes() == (wide / "whole" / "evidence.npz").read_bytes()


class Small(LinearSession):
    """Holds so many images at a time."""

    def __init__(self, weight, bias, holds, error):
        super().__init__(weight, bias)
        self.holds, self.error = holds, error

    def _logits(self, x):
        if x.shape[0] > self.holds:
            raise self.error
        return super()._logits(x)


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemory("the GPU is full")])
def test_a_batch_is_halved_until_it_fits_and_stays_so(task, error):
    weight, bias, images, _ = task
    small = Small(weight, bias, 10, error)
    session = BatchHalving(small)
    assert np.array_equal(session.logits(images), LinearSession(weight, bias).logits(images))
    assert session.largest == 7  # of 60, 30, 15
    before = len(small.calls)
    session.logits(images)
    assert small.calls[before:] == [7] * 8 + [4]
    with pytest.raises(OutOfMemory, match="a single image"):
        BatchHalving(Small(weight, bias, 0, error)).logits(images)
