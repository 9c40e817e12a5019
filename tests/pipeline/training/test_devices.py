"""Several processes: the weights of one that takes a batch in as many parts, and an end for all when one is lost."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from pipeline.runs.distill import distill
from pipeline.training.devices import launch
from runtime.errors import BadRecipe, MissingEnvironment, NonFinite, UsageFault
from tests.paths import PROGRAM
from tests.pipeline.runs import small_runs
from tests.pipeline.runs.small_runs import metrics, small, weights, write_small


def test_a_test_sees_no_gpu_nor_does_a_process_that_it_starts():
    """Else a machine with one would run what is meant for the CPU there, and compare it with figures of a CPU."""
    pick = "from pipeline.training.devices import training_device; import os; print(training_device(), os.environ)"
    said = subprocess.run([sys.executable, "-c", pick], capture_output=True, text=True, check=True).stdout
    assert said.startswith("cpu ")
    assert "'CUDA_VISIBLE_DEVICES': ''" in said


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["trades", "iad", "adaad"])
def test_two_processes_end_in_the_weights_of_one_that_takes_two_micro_batches(method, tmp_path):
    """TRADES forwards twice in its loss; IAD searches through the student in training mode, statistics and all.

    AdaAD, as its published code, forwards the clean images too, and its loss does not depend on what comes out.
    """
    settings = (f"method.name={method}", "train.ema=0.9", "train.awp=0.01")
    if method == "adaad":
        settings += ("method.adaad.clean_statistics=true",)
    apart = distill(small(tmp_path, *settings), tmp_path / "apart", devices=2)
    together = distill(small(tmp_path, *settings, "train.micro_batches=2"), tmp_path / "together")
    assert (apart.devices, together.devices) == (2, 1)
    assert apart.norm_batch == together.norm_batch == 10
    for which in ("last", "best"):
        assert largest_difference(weights(tmp_path / "apart", which), weights(tmp_path / "together", which)) < 1e-5
    assert [line.keys() for line in metrics(tmp_path / "apart")] == [
        line.keys() for line in metrics(tmp_path / "together")
    ]


@pytest.mark.slow
def test_each_part_draws_its_own_dropout_in_whichever_process_it_is(tmp_path):
    settings = (f"student.factory={small_runs.__name__}:with_dropout", "train.max_steps=3")
    distill(small(tmp_path, *settings), tmp_path / "apart", devices=2)
    distill(small(tmp_path, *settings, "train.micro_batches=2"), tmp_path / "together")
    assert largest_difference(weights(tmp_path / "apart"), weights(tmp_path / "together")) < 1e-5


@pytest.mark.slow
def test_an_error_in_every_process_comes_back_as_it_is(tmp_path):
    with pytest.raises(NonFinite, match="step") as caught:
        distill(small(tmp_path, "train.lr=1e30"), tmp_path / "run", devices=2)
    assert caught.value.hint == "lower train.lr"


def in_one_process_alone(fabric, message):
    if fabric.global_rank == 1:
        raise BadRecipe(message, hint="mend it")
    fabric.barrier()


@pytest.mark.slow
def test_an_error_in_one_process_alone_ends_all_and_comes_back_as_it_is():
    with pytest.raises(BadRecipe, match="only here") as caught:
        launch(in_one_process_alone, "only here", devices=2)
    assert caught.value.hint == "mend it"


def a_defect_in_one_process_alone(fabric):
    if fabric.global_rank == 1:
        raise ZeroDivisionError("nobody expected this")
    fabric.all_reduce(torch.ones(1))


@pytest.mark.slow
@pytest.mark.check
def test_a_defect_in_one_process_is_told_as_it_is_and_not_as_a_loss():
    with pytest.raises(ProcessRaisedException, match="ZeroDivisionError: nobody expected this"):
        launch(a_defect_in_one_process_alone, devices=2)


def aborts_at_the_end_of_the_interpreter(fabric):
    """As threads of gloo do now and then, on a busy machine."""
    atexit.register(os.abort)
    return 7


@pytest.mark.slow
def test_a_finished_process_is_not_lost_by_the_end_of_its_interpreter():
    assert launch(aborts_at_the_end_of_the_interpreter, devices=2) == 7


def returns_what_cannot_be_sent(fabric):
    return lambda: fabric


@pytest.mark.slow
def test_a_result_that_cannot_be_sent_ends_the_run_with_an_error():
    """And not with a wait for it."""
    with pytest.raises(ProcessRaisedException, match="pickle"):
        launch(returns_what_cannot_be_sent, devices=2)


def gone_in_silence(fabric):
    if fabric.global_rank == 1:
        os._exit(0)
    fabric.all_reduce(torch.ones(1))


@pytest.mark.slow
def test_a_process_that_the_others_wait_for_in_vain_is_reported_as_lost():
    with pytest.raises(MissingEnvironment, match="was lost") as caught:
        launch(gone_in_silence, devices=2)
    assert "--resume" in caught.value.hint


def workers(parent):
    """Return the processes that a process started to train, in the order of their ranks."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (place / "status").read_text(), (place / "cmdline").read_text()
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in status and "spawn_main" in command:
            found.append(int(place.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.check), 1])
def test_a_killed_process_ends_the_run_and_another_number_of_devices_can_take_it_on(rank, tmp_path):
    recipe, run = write_small(tmp_path), tmp_path / "run"
    settings = ("train.epochs=6",)
    command = [*PROGRAM, "distill", recipe, "--out", run, "--save-every", "0", "--devices", "2"]
    command += [word for setting in settings for word in ("--set", setting)]
    with (tmp_path / "stderr").open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        while process.poll() is None and not (run / "state" / "training.safetensors").exists():
            time.sleep(0.01)
        os.kill(workers(process.pid)[rank], signal.SIGKILL)
        killed = time.monotonic()
        code = process.wait(timeout=120)
        print(f"the run ended {time.monotonic() - killed:.1f} s after process {rank} was killed")
    told = (tmp_path / "stderr").read_text()
    assert code == 4, told
    assert "was lost" in told
    assert "--resume" in told
    assert workers(process.pid) == []
    assert not (run / "summary.json").exists()
    distill(small(tmp_path, *settings), run, resume=True)
    distill(small(tmp_path, *settings, "train.micro_batches=2"), tmp_path / "whole")
    assert largest_difference(weights(run), weights(tmp_path / "whole")) < 1e-5


def torchrun(node, port, *command):
    place = ["--nnodes", "2", "--node-rank", node, "--master-addr", "127.0.0.1", "--master-port", port]
    launcher = [sys.executable, "-m", "torch.distributed.run", *place, "--nproc-per-node", "1", "--no-python"]
    return subprocess.Popen(
        [str(word) for word in (*launcher, *PROGRAM, *command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_nodes_under_torchrun_end_in_the_weights_of_two_devices(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("distill", write_small(tmp_path), "--out", tmp_path / "run", "--nodes", 2)
    nodes = [torchrun(node, port, *command) for node in (0, 1)]
    (shown, told), (silent, _) = (node.communicate(timeout=500) for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], told
    assert "best: epoch" in shown
    assert silent == ""
    distill(small(tmp_path, "train.micro_batches=2"), tmp_path / "together")
    assert largest_difference(weights(tmp_path / "run"), weights(tmp_path / "together")) < 1e-5


def test_several_nodes_without_a_launcher_are_refused(tmp_path):
    with pytest.raises(UsageFault, match="torchrun"):
        distill(small(tmp_path), tmp_path / "run", nodes=2)
    assert not (tmp_path / "run").exists()


ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
"""What Slurm tells a batch script of four tasks, which is one process all the same."""
ON_ONE_NODE = {"SLURM_NTASKS_PER_NODE": "4"}
BY_SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2"}


@pytest.mark.parametrize(
    "more", [{}, ON_ONE_NODE, {**BY_SRUN, "SLURM_NTASKS": "1"}], ids=["job", "on one node", "srun"]
)
def test_one_process_in_a_slurm_allocation_trains_alone(more, monkeypatch):
    for name, value in {**ALLOCATION, **more}.items():
        monkeypatch.setenv(name, value)
    assert launch(lambda fabric: (fabric.world_size, fabric.is_global_zero)) == (1, True)


@pytest.mark.parametrize(("more", "told"), [({}, "per machine"), (ON_ONE_NODE, "started 4 processes for 1 x 1")])
def test_processes_of_srun_that_nobody_asked_for_are_refused_with_a_way_out(more, told, monkeypatch):
    for name, value in {**ALLOCATION, **BY_SRUN, **more}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageFault, match=told) as caught:
        launch(lambda fabric: None)
    assert caught.value.hint


def test_one_device_returns_what_the_work_returns_and_raises_what_it_raises():
    assert launch(lambda fabric, value: (fabric.world_size, value), 7) == (1, 7)
    with pytest.raises(ZeroDivisionError):
        launch(lambda fabric: 1 / 0)


def test_an_interrupt_of_one_process_waits_for_no_others(monkeypatch):
    def interrupted(fabric):
        raise KeyboardInterrupt

    monkeypatch.setattr("multiprocessing.connection.wait", lambda *_, **__: pytest.fail("there is nobody to wait for"))
    with pytest.raises(KeyboardInterrupt):
        launch(interrupted)


def test_more_parts_than_a_batch_has_pairs_of_images_are_refused(tmp_path):
    with pytest.raises(BadRecipe, match="parts"):
        distill(small(tmp_path, "train.micro_batches=16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
