"""A verify of several units in a process of its own, to be stopped, killed and starved; beside one left alone."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from runtime.bundle.manifest import EVALUATION
from runtime.files import sha256
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import bundle_files, linear_task, npz

COMMAND = [sys.executable, "-c", "from runtime.cli import main; main()"]
OPTIONS = ["--attacks", "fgsm,pgd,apgd-ce", "--save-adversarial", "--lattice", "uint8"]
N = 600


def whole_run(place):
    """Leave a bundle of three units an attack in `place`, and beside it, in `whole`, its run; return the place."""
    weight, bias, images, labels = linear_task(n=N)
    stored = npz(images=np.round(images * 255).astype(np.uint8), labels=labels, ids=np.arange(N))
    write_bundle(place / "bundle", {**bundle_files((weight, bias, images, labels)), EVALUATION: stored}, n=N)
    result = edgeproof("verify", place / "bundle", *OPTIONS, "--out", place / "whole")
    assert result.exit_code == 0, result.stderr
    return place


def lines(out):
    path = out / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def start(place, out, *options, command=COMMAND, **environment):
    return subprocess.Popen(
        [*command, "verify", str(place / "bundle"), *OPTIONS, *options, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits it as ignored
    )


def stop(process, signal_number, out, count):
    """Send a signal as soon as the journal has `count` lines; return what was written to stderr."""
    wait_for_line(process, out, count - 1)
    process.send_signal(signal_number)
    return process.communicate(timeout=120)[1]


def wait_for_line(process, out, count):
    """Wait until the journal has more lines than `count`, or the process has ended."""
    while process.poll() is None and lines(out) <= count:
        time.sleep(0.0005)


def pause(process, out, count):
    """Hold the process as soon as the journal has `count` lines: time to change the world under it."""
    wait_for_line(process, out, count - 1)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def go_on(process):
    """Let a held process go on to its end; return what was written to stderr."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=120)[1]


def assert_same(out, whole):
    """The evidence is the same to the byte, and so is the report but for times."""
    assert (out / "evidence.npz").read_bytes() == (whole / "evidence.npz").read_bytes()
    assert (out / "gallery.npz").read_bytes() == (whole / "gallery.npz").read_bytes()
    assert (out / "run.json").read_bytes() == (whole / "run.json").read_bytes()
    reports = [json.loads((each / "report.json").read_text()) for each in (out, whole)]
    for report in reports:
        for name in ("started", "seconds"):
            del report[name]
        for row in (*report["attacks"], report["blind_control"], report["square_alone"]):
            if row is not None:
                del row["seconds"]
    assert reports[0] == reports[1]


def move_here(run, made_by):
    """Write a journal as if it was begun on this machine, by the chain of checksums that the format has."""
    lines, check = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()], ""
    lines[0]["made_by"] = made_by
    for line in lines:
        del line["check"]
        check = sha256((check + json.dumps(line, sort_keys=True) + "\n").encode())[:32]
        line["check"] = check
    (run / "journal.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
