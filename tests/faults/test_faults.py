"""A few of the faults of `python -m tests.faults`, in the fast tier; and that it sees what is wrong."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.faults import library
from tests.faults.commands import plain
from tests.faults.forked import Ended
from tests.faults.mutations import KINDS
from tests.faults.publish import MEASURED, PAGE, RAW
from tests.faults.report import summary, tables
from tests.faults.trial import FINISHED, KILLED, Bench, Wrong, how_it_ended
from tests.faults.writes import spread
from tests.paths import ROOT, TINY

TOOL = (sys.executable, "-m", "tests.faults")

needs_compiler = pytest.mark.skipif(library.compiler() is None, reason="there is no C compiler")


def faults(out, *options):
    return subprocess.run(
        [*TOOL, "--out", out, *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def trials(out):
    return [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]


@needs_compiler
def test_a_command_that_is_killed_or_deceived_at_its_first_write_ends_right(tmp_path):
    told = faults(tmp_path, "--parts", "kills,writes", "--commands", "install", "--kills", 1, "--stop", 1)
    assert told.returncode == 0, told.stdout + told.stderr
    found = trials(tmp_path)
    assert len(found) == 1 + len(library.FAULTS)
    assert {trial["how"] for trial in found} <= {KILLED, FINISHED, "typed error, exit code 4"}
    assert "| install | 1 | 1 |" in (tmp_path / "faults.md").read_text()
    assert json.loads((tmp_path / "faults.json").read_text())["wrong"] == []


@pytest.mark.slow
@needs_compiler
def test_each_write_of_an_installation_fails_in_each_way_and_none_is_tried_twice(tmp_path):
    told = faults(tmp_path, "--parts", "writes", "--commands", "install")
    assert told.returncode == 0, told.stdout + told.stderr
    places = {trial["felt"].partition(" ")[0] for trial in trials(tmp_path) if trial["how"]}
    assert {"open", "write", "fsync", "rename", "mkdir", "symlink", "unlink", "rmdir"} <= places
    before = (tmp_path / "trials.jsonl").read_bytes()
    assert faults(tmp_path, "--parts", "writes", "--commands", "install").returncode == 0
    assert (tmp_path / "trials.jsonl").read_bytes() == before


WRITER = """
import os, sys
from pathlib import Path
from tests.faults import library
place, fault, number = Path(sys.argv[1]), library.FAULTS[sys.argv[2]], int(sys.argv[3])
library.arm(place, fault, number, 2)
try:
    (place / "a").write_bytes(b"1")
    (place / "a").rename(place / "b")
    (place / "b").read_bytes()
    (place / "b").unlink()
except OSError as error:
    print(error.errno)
library.disarm()
print(sorted(path.name for path in place.iterdir()))
"""


@needs_compiler
@pytest.mark.parametrize(
    ("fault", "number", "felt", "said"),
    [
        ("io", 1, "open /a", "5\n[]\n"),
        ("io", 2, "write /a", "5\n['a']\n"),
        ("io", 3, "rename /b", "5\n['a']\n"),
        ("io", 4, "unlink /b", "5\n['b']\n"),
        ("io", 5, "", "[]\n"),
        ("full", 4, "", "[]\n"),  # removing needs no space
        ("lost", 3, "rename /b", "116\n['a']\n"),
        ("out of memory", 3, "rename /b", ""),
    ],
)
def test_the_library_lets_the_call_with_a_number_fail_and_says_which(tmp_path, fault, number, felt, said):
    (tmp_path / "place").mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(library.build(tmp_path))}
    command = [sys.executable, "-c", WRITER, tmp_path / "place", fault, str(number)]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, start_new_session=True)
    assert (told.stderr, told.stdout) == (felt, said)
    assert (told.returncode == -9) == (fault == "out of memory")


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (Ended(70, "this is a defect", 0), "with a traceback"),
        (Ended(0, "Traceback (most recent call last):", 0), "with a traceback"),
        (Ended(4, "error: it fails", 0), "without error and hint"),
        (Ended(-9, "", 0, hung=True), "did not end"),
    ],
)
def test_an_end_that_nobody_was_prepared_for_is_wrong(ended, why):
    with pytest.raises(Wrong, match=why):
        how_it_ended(ended)


def test_other_ends_are_put_in_words():
    told = (Ended(0, "", 0), Ended(-9, "", 0), Ended(-6, "", 0), Ended(4, "error: x\nhint: y\n", 0))
    assert [how_it_ended(each) for each in told] == [FINISHED, KILLED, "ended by SIGABRT", "typed error, exit code 4"]


@pytest.mark.parametrize("count", [1, 2, 47, 188])
def test_the_writes_that_are_tried_first_lie_far_apart(count):
    order = spread(count)
    assert sorted(order) == list(range(1, count + 1))
    quarters = {(number - 1) * 4 // count for number in order[:5]}
    assert quarters == {(number - 1) * 4 // count for number in order}


FULL = Ended(4, "error: full\nhint: free some space\n", 0, "write /out/x")


@pytest.fixture
def bench(tmp_path):
    """An export whose inputs are there, and of which nothing is done yet."""
    bench = Bench("export", tmp_path / "given", tmp_path / "place", tmp_path)
    for name in bench.command.given:
        (bench.given / name).mkdir(parents=True)
        (bench.given / name / "a").write_text("a")
    bench.lay()
    return bench


def test_a_changed_input_is_wrong(bench):
    (bench.place / "trained" / "a").write_text("b")
    with pytest.raises(Wrong, match="its input trained is no longer what it was"):
        bench.judged(FULL, {}, cleans_up=True)


@pytest.mark.parametrize("name", [".out.01234567", "tmp/x", "tmpabcdefgh"])
def test_what_is_left_half_done_is_wrong(bench, name):
    (bench.place / name).write_text("")
    with pytest.raises(Wrong, match=f"and leaves {name}"):
        bench.judged(FULL, {}, cleans_up=True)


def test_a_bundle_that_is_not_whole_is_wrong(bench):
    shutil.copytree(TINY, bench.out)
    (bench.out / "model.fp32.onnx").write_bytes(b"?")
    with pytest.raises(Wrong, match="half-written: BadBundle"):
        bench.judged(FULL, {}, cleans_up=True)


def test_a_success_without_its_files_is_wrong(bench):
    with pytest.raises(Wrong, match=r"not all is there: manifest\.json"):
        bench.judged(Ended(0, "", 0), {"manifest.json": "0"}, cleans_up=True)


def test_only_what_says_how_long_something_took_is_left_out_of_a_comparison():
    assert plain({"a": 1, "seconds": 2, "b": [{"time": 3, "c": 4}]}) == {"a": 1, "b": [{"c": 4}]}


def test_the_report_counts_trials_and_names_those_that_ended_wrong():
    wrong = {"part": "writes", "command": "pack", "fault": "io", "number": 2, "how": "wrong", "wrong": "x stays"}
    right = {**wrong, "number": 1, "how": FINISHED, "felt": "open /out", "writes": 47}
    found = summary([{**trial, "commit": "1234567"} for trial in (right, wrong)])
    assert found["parts"]["writes"]["pack"]["io"] == {"n": 2, "of": 47, "ended": {FINISHED: 1, "wrong": 1}}
    assert found["commits"] == ["1234567"]
    assert found["wrong"] == [{**wrong, "commit": "1234567"}]
    assert found["places"] == {"pack": {"open": 1}}


def test_the_page_of_results_says_what_its_trials_say():
    found = summary([json.loads(line) for line in RAW.read_text().splitlines()])
    said = MEASURED.search(PAGE.read_text())[0]
    assert said.endswith("\n\n" + tables(found))
    assert said.startswith(f"Commit {' and '.join(found['commits'])}; ")
    assert found["wrong"] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("mutations")


@pytest.mark.skipif(find_spec("cyclonedx") is None, reason="CycloneDX's library is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_mutations_of_each_kind_are_refused_or_right(place, kind):
    assert KINDS[kind](place, 20).total() >= 20
