"""A judge's process that does something else than it should: a typed error each time, and nothing of it is left."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.batches.halving import BatchHalving
from runtime.errors import BadAnswer, EngineFault, JudgeFault, UsageFault
from runtime.external import process
from runtime.external.session import ExternalJudge
from runtime.session import GraphFacts

STRANGER = Path(__file__).with_name("stranger.py")
IMAGES = np.full((6, 1, 4, 4), 0.5, np.float32)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(process, "FAREWELL", 0.3)
    monkeypatch.setattr(process, "GRACE", 0.3)


@pytest.fixture
def pids(tmp_path):
    return tmp_path / "pids"


def stranger(how, pids, start=60.0):
    command = shlex.join([sys.executable, "-S", str(STRANGER), how, str(pids)])
    return judged(command, start)


def judged(command, start=60.0):
    return ExternalJudge(
        command, artifact="0" * 64, facts=GraphFacts(), precision="fp32", image=(1, 4, 4), classes=3, start=start
    )


def alive(pids):
    """Return which of the processes noted still run; one that only waits to be reaped by init does not."""
    return [pid for pid in map(int, pids.read_text().split()) if runs(pid)]


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def nothing_is_left(pids):
    deadline = time.monotonic() + 5
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ChildProcessError):
        os.waitpid(int(pids.read_text().split()[0]), os.WNOHANG)  # it was reaped
    return not alive(pids)


AT_FIRST = {
    "noise": (BadAnswer, "Loading the model"),
    "a line feed": (BadAnswer, "announces an answer of"),
    "ends at once": (JudgeFault, "exit code 7; its stderr ends: no such device / ?[31mgiving up"),
    "closes stdout": (JudgeFault, "did not answer"),
    "another version": (BadAnswer, "speaks 'edgeproof-judge/2', and this edgeproof edgeproof-judge/1"),
    "another key": (BadAnswer, "dtype: no such key"),
    "no name": (BadAnswer, "name: String should match"),
    "no JSON": (BadAnswer, "is no JSON: 'ready'"),
    "a list": (BadAnswer, "handshake is wrong"),
    "a long handshake": (BadAnswer, "more than 4096"),
    "half a handshake": (JudgeFault, "broke off after 1 of 200 bytes: it ended with exit code 0"),
}


@pytest.mark.parametrize("how", AT_FIRST)
def test_what_is_no_handshake_is_told_and_the_process_ended(how, pids):
    error, words = AT_FIRST[how]
    with pytest.raises(error) as raised:
        stranger(how, pids, start=0.4 if how in ("silent", "no reader") else 5.0)
    assert any(part in raised.value.message for part in words.split("|")), raised.value.message
    assert raised.value.hint
    assert nothing_is_left(pids)


@pytest.mark.parametrize("does", ["exec sleep 600", "exec sleep 600 <&-"], ids=["says nothing", "reads nothing"])
def test_what_is_not_ready_in_time_is_told_and_the_process_ended(does, pids):
    with pytest.raises(JudgeFault, match=r"took more than 2.0 s|reads no more"):
        judged(shlex.join(["sh", "-c", f"echo $$ > {pids}; {does}"]), start=2.0)
    assert nothing_is_left(pids)


WHEN_ASKED = {
    "crashes": (JudgeFault, "was ended by SIGSEGV"),
    "a child holds stdout": (JudgeFault, "exit code 3"),
    "hangs": (JudgeFault, "took more than 0.5 s to answer; its stderr ends: waiting for the bus"),
    "half an answer": (JudgeFault, "broke off after 150 of 200 bytes: it ended with exit code 0"),
    "half an answer, and waits": (JudgeFault, "took more than 0.5 s"),
    "an answer without end": (BadAnswer, "announces an answer of 18446744073709551615 bytes"),
    "cut npy": (BadAnswer, "68 bytes of logits, not 72"),
    "longer npy": (BadAnswer, "76 bytes of logits, not 72"),
    "a row too few": (BadAnswer, "shape (5, 3) to 6 images of 3 classes"),
    "a class too many": (BadAnswer, "shape (6, 4)"),
    "a shape of its own": (BadAnswer, "shape (1099511627776, 1099511627776)"),
    "one number": (BadAnswer, "shape ()"),
    "doubles": (BadAnswer, "float64, not float32"),
    "objects": (BadAnswer, "object, not float32"),
    "big endian": (BadAnswer, ">f4, not float32"),
    "columns first": (BadAnswer, "in Fortran's order"),
    "npy 9": (BadAnswer, "npy 9.0"),
    "text": (BadAnswer, "no npy array: '0.1 0.2 0.7'"),
    "empty": (BadAnswer, "no npy array: ''"),
    "fails": (JudgeFault, "the judge failed: no link to the board"),
    "refuses otherwise": (BadAnswer, "refusal is wrong: error"),
    "prints": (BadAnswer, 'it begins "done'),
    "answers unasked": (BadAnswer, "before it was asked"),
}


@pytest.mark.parametrize("how", WHEN_ASKED)
def test_what_is_no_answer_is_told_and_the_process_ended(how, pids):
    error, words = WHEN_ASKED[how]
    with stranger(how, pids) as judge:
        if how == "answers unasked":
            time.sleep(0.2)
        with pytest.raises(error) as raised:
            judge.logits(IMAGES)
        assert words in raised.value.message
        assert raised.value.hint
    assert nothing_is_left(pids)


def test_each_error_has_the_exit_code_of_its_kind():
    assert {each: each.exit_code for each in (UsageFault, BadAnswer, JudgeFault)} == {
        UsageFault: 2, BadAnswer: 3, JudgeFault: 4,
    }  # fmt: skip


def test_a_judge_that_answers_is_asked_as_often_as_one_likes(pids):
    with stranger("well", pids) as judge:
        for n in (1, 6, 6, 3):
            assert judge.logits(IMAGES[:n]).shape == (n, 3)
    assert nothing_is_left(pids)


def test_a_judge_is_never_asked_for_more_images_than_it_takes(pids):
    with stranger("well", pids) as judge:
        assert judge.logits(np.zeros((150, 1, 4, 4), np.float32)).shape == (150, 3)  # the script counts by one frame


def test_after_a_broken_exchange_it_is_asked_no_more(pids):
    with stranger("hangs", pids) as judge:
        with pytest.raises(JudgeFault) as first:
            judge.logits(IMAGES)
        with pytest.raises(JudgeFault, match="no longer used") as second:
            judge.logits(IMAGES)
    assert first.value.message in second.value.message  # the first may have been caught, as by the estimate of time


def test_what_does_not_fit_its_memory_is_asked_in_halves(pids):
    with stranger("small", pids) as judge:
        halving = BatchHalving(judge)
        assert halving.logits(IMAGES).shape == (6, 3)
        assert halving.largest == 3


def test_a_megabyte_on_stderr_blocks_nothing(pids):
    with stranger("floods stderr", pids) as judge:
        assert judge.logits(IMAGES).shape == (6, 3)


@pytest.mark.parametrize("how", ["stays", "stubborn", "leaves a child"])
def test_closing_ends_a_process_that_does_not_end_and_what_it_started(how, pids):
    judge = stranger(how, pids)
    judge.close()
    assert nothing_is_left(pids)
    judge.close()
    with pytest.raises(EngineFault, match="closed"):
        judge.logits(IMAGES)


def test_ctrl_c_while_it_loads_leaves_no_process(pids, monkeypatch):
    monkeypatch.setattr(process.JudgeProcess, "_wait", lambda *given: pids.exists() and interrupted())
    with pytest.raises(KeyboardInterrupt):
        judged(shlex.join(["sh", "-c", f"echo $$ > {pids}; exec sleep 600"]))
    assert nothing_is_left(pids)


def test_a_judge_that_nobody_closed_is_ended_with_what_held_it(pids):
    judge = process.JudgeProcess(["sleep", "600"])
    pids.write_text(str(judge._process.pid))
    del judge
    assert nothing_is_left(pids)


def test_ctrl_c_while_it_is_started_leaves_no_process(pids, monkeypatch):
    start = process._started

    def interrupted_at_once(words):
        started = start(words)
        signal.raise_signal(signal.SIGINT)
        pids.write_text(str(started.pid))
        return started

    monkeypatch.setattr(process, "_started", interrupted_at_once)
    with pytest.raises(KeyboardInterrupt):
        process.JudgeProcess(["sleep", "600"])
    assert nothing_is_left(pids)


def interrupted():
    time.sleep(0.1)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "names no program"),
        ("''", "names no program"),
        ("python 'judge.py", "cannot be read"),
        ("no-such-program-anywhere x", "cannot be started: No such file"),
        ("/etc/passwd", "cannot be started: Permission denied"),
        ("python a\x1bb", "characters that cannot be printed"),
        ("python a\x00b", "characters that cannot be printed"),
        ("no-such-program-anywhere " + "x" * 5000, "cannot be started"),
    ],
)
def test_what_is_no_command_is_refused_as_the_command_line(command, words):
    with pytest.raises(UsageFault, match=words) as raised:
        judged(command)
    assert raised.value.exit_code == 2


def test_the_card_names_program_script_and_model_by_their_digests(pids):
    from runtime.files import sha256

    with stranger("well", pids) as judge:
        card = judge.card()
    assert (card.backend, card.provider, card.differentiable) == ("command", "stranger", False)
    assert card.judge_command.command == shlex.join([sys.executable, "-S", str(STRANGER), "well", str(pids)])
    assert card.judge_command.files[str(STRANGER)] == sha256(STRANGER.read_bytes())
    assert sys.executable in card.judge_command.files
    assert "well" not in card.judge_command.files
