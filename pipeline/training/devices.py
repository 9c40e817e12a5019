"""Starts the processes of a training run with Lightning Fabric, one per device."""

from __future__ import annotations

import inspect
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.util import Finalize
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.nn.parallel import DistributedDataParallel

from pipeline.memory import keep_freed_memory
from runtime.errors import EdgeproofError, MissingEnvironment, UsageFault

T = TypeVar("T")
GRACE = 60.0
"""Seconds within which an interrupted run must finish its step and save its state."""
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the latter in older PyTorch
    if name in inspect.signature(DistributedDataParallel).parameters
)


def training_device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def launch(work: Callable[..., T], *arguments: Any, devices: int = 1, nodes: int = 1) -> T:
    """Run `work(fabric, *arguments)` in one process per device, and return the result of the first process.

    One device needs no other process. On one machine, several processes are started here. On several machines, torchrun
    or Slurm has started this process, and it joins the others.

    Raises:
        UsageFault: the launcher started another number of processes.
        MissingEnvironment: there are too few devices, or a process was lost; the others have ended then.
        EdgeproofError: any error of `work`, from any of the processes.

    """
    fabric = _fabric(devices, nodes)
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    others = set(multiprocessing.active_children())
    try:
        return fabric.launch(_attempt, failures, work, *arguments)  # type: ignore[no-any-return, arg-type]
    except (ProcessExitedException, ProcessRaisedException) as error:
        told = []
        while not failures.empty():
            told.append(failures.get())
        if told:  # if one process reports that it lost another, the error of that other one is the cause
            raise next((failure for failure in told if not isinstance(failure, Lost)), told[0]) from None
        if isinstance(error, ProcessRaisedException):
            raise
        raise _lost(f"process {error.error_index} ({error.signal_name or error.exit_code})") from None
    except KeyboardInterrupt:
        _end(set(multiprocessing.active_children()) - others)
        raise


def _end(processes: set[multiprocessing.process.BaseProcess]) -> None:
    """Give the first process up to GRACE seconds to finish its step and save the state; then end all processes."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + GRACE
    while processes and time.monotonic() < end and all(process.is_alive() for process in processes):
        multiprocessing.connection.wait([process.sentinel for process in processes], timeout=1)
    for process in processes:
        process.kill()
        process.join()


def local_processes(fabric: Fabric) -> int:
    """Return the number of the run's processes on this machine, which share its cores and its memory."""
    return getattr(fabric.strategy, "num_processes", 1)


def one_device(device: torch.device) -> Fabric:
    """Return the Fabric of one process on one device."""
    return Fabric(accelerator=device.type, devices=1, plugins=[LightningEnvironment()])


def from_first(fabric: Fabric, work: Callable[[], T]) -> T:
    """Call `work` in the first process only; return its result, or raise its error, in all processes."""
    outcome: T | Exception | None = None
    if fabric.is_global_zero:
        try:
            outcome = work()
        except (EdgeproofError, OSError) as error:
            outcome = error
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome  # type: ignore[return-value]


def share_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Copy the buffers (the running statistics) of the first process to all others."""
    if fabric.world_size > 1:
        for sent in [torch.distributed.broadcast(buffer, src=0, async_op=True) for buffer in network.buffers()]:
            assert sent is not None
            sent.wait()


def _fabric(devices: int, nodes: int) -> Fabric:
    device = training_device()
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise MissingEnvironment(
            f"--devices is {devices}, but this machine has {torch.cuda.device_count()} GPUs", hint="lower --devices"
        )
    launcher = _launcher()
    if launcher is not None and (started := launcher.world_size()) != devices * nodes:
        raise UsageFault(
            f"the launcher started {started} processes for {nodes} x {devices} devices",
            hint="--devices is the number on one machine, --nodes the number of machines",
        )
    if devices * nodes == 1:
        return one_device(device)
    if launcher is None and nodes > 1:
        raise UsageFault(
            "--nodes needs torchrun or srun to start a process on every machine", hint="see docs/recipes/runs.md"
        )
    # Processes are spawned, because CUDA does not work after a fork. share_buffers shares buffers once per step.
    own: dict[str, Any] = {_SYNC_BUFFERS: False}
    strategy = DDPStrategy(start_method="spawn" if launcher is None else "popen", **own)
    environment = launcher or LightningEnvironment()
    return Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy=strategy, plugins=[environment])


def _launcher() -> ClusterEnvironment | None:
    """Return the launcher that has started one process per device: torchrun or srun. A Slurm allocation is none."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    tasks = int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_STEP_ID" in os.environ else 1
    if tasks == 1 or not SLURMEnvironment.detect():
        return None
    try:
        return SLURMEnvironment()
    except RuntimeError:
        raise UsageFault(
            f"srun started {tasks} processes, but does not say how many per machine",
            hint="set srun --ntasks-per-node to the number of --devices; for a single process, use srun --ntasks 1",
        ) from None


def _attempt(fabric: Fabric, failures: SimpleQueue[Exception], work: Callable[..., T], *arguments: Any) -> T:
    """Call `work`; put the error that ended it into the queue.

    PyTorch would convert every error to text and keep only one, perhaps that of a process which lost the one at fault.
    """
    keep_freed_memory()
    if fabric.world_size > 1 and multiprocessing.parent_process() is not None:
        Finalize(None, _end_at_once, exitpriority=-sys.maxsize)  # after all others
    try:
        try:
            return work(fabric, *arguments)
        except RuntimeError as error:
            if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):  # whose errors have no type
                raise _lost("another process") from error
            raise
    except Exception as error:
        if fabric.world_size > 1:
            known = isinstance(error, (EdgeproofError, OSError))
            defect = ProcessRaisedException(traceback.format_exc(), fabric.global_rank, os.getpid())
            failures.put(error if known else defect)
        raise


def _end_at_once() -> None:
    """End this process, if no error is on its way, without the end of the interpreter.

    Threads of gloo may release their last tensors only then, for which they need the interpreter: that would abort the
    process ("terminate called without an active exception"), and a finished run would count as lost.
    """
    if sys.exc_info()[0] is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class Lost(MissingEnvironment):
    """A process of the run has ended, and the others cannot continue."""


def _lost(what: str) -> Lost:
    return Lost(f"{what} was lost, and the run has ended", hint="continue from its last saved state with --resume")
