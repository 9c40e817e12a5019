"""Devices and processes, which Lightning Fabric starts for the training run."""

from __future__ import annotations

import inspect
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
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
"""Seconds in which an interrupted run must finish a step and save its state."""
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
        MissingEnvironment: there are fewer devices, or a process was lost; the others have ended then.
        EdgeproofError: what `work` raises, from whichever process.

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
        if told:  # a process that was lost to another may have failed of what happened there
            raise next((failure for failure in told if not isinstance(failure, Lost)), told[0]) from None
        if isinstance(error, ProcessRaisedException):
            raise
        raise _lost(f"process {error.error_index} ({error.signal_name or error.exit_code})") from None
    except KeyboardInterrupt:
        _end(set(multiprocessing.active_children()) - others)
        raise


def _end(processes: set[multiprocessing.process.BaseProcess]) -> None:
    """Let the first process save the state after its step, for GRACE seconds at most, and see that none is left."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + GRACE
    while processes and time.monotonic() < end and all(process.is_alive() for process in processes):
        multiprocessing.connection.wait([process.sentinel for process in processes], timeout=1)
    for process in processes:
        process.kill()
        process.join()


def local_processes(fabric: Fabric) -> int:
    """Return how many processes of the run this machine has, which share its cores and its memory."""
    return getattr(fabric.strategy, "num_processes", 1)


def one_device(device: torch.device) -> Fabric:
    """Return the Fabric of one process on one device."""
    return Fabric(accelerator=device.type, devices=1, plugins=[LightningEnvironment()])


def from_first(fabric: Fabric, work: Callable[[], T]) -> T:
    """Call `work` in the first process alone; what it returns or raises is returned or raised in all of them."""
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
    """Give every process the first one's buffers: the running statistics."""
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
    # Spawned, not forked: CUDA allows no fork. Buffers are shared once a step, by share_buffers.
    own: dict[str, Any] = {_SYNC_BUFFERS: False}
    strategy = DDPStrategy(start_method="spawn" if launcher is None else "popen", **own)
    environment = launcher or LightningEnvironment()
    return Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy=strategy, plugins=[environment])


def _launcher() -> ClusterEnvironment | None:
    """Return what has started one process a device already: torchrun or srun, not a Slurm allocation by itself."""
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
    """Call `work`; leave what ended it in the queue.

    PyTorch would make text of every error, and keep one alone: maybe that of a process which lost the one at fault.
    """
    keep_freed_memory()
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


class Lost(MissingEnvironment):
    """A process of the run has ended, and the others cannot go on."""


def _lost(what: str) -> Lost:
    return Lost(f"{what} was lost, and the run has ended", hint="its last saved state is whole: go on with --resume")
