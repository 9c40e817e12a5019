"""bench.json: measurements with their circumstances and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.backends.table import BACKENDS
from runtime.errors import install
from runtime.machine.card import machine_card, software
from runtime.machine.cuda import accelerator
from runtime.records.bench import Bench
from runtime.tensorrt.library import EDITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.backends.pairing import Runner
    from runtime.bundle.opening import Bundle
    from runtime.machine.sensors import Sensors
    from runtime.records.bench import BenchRun
    from runtime.session import SessionCard

LIBRARIES = ("edgeproof", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", *EDITIONS)
NO_POWER = "power was not measured: "
PIPES = "a process answered: each latency includes sending the images and the logits through pipes"


def bench_record(
    bundle: Bundle,
    judge: Runner,
    card: SessionCard,
    data: str,
    runs: Sequence[BenchRun],
    sensors: Sensors,
    started: str,
) -> Bench:
    """Return bench.json of the measurements on one runner; `data` names the images, and `card` has the device."""
    return Bench(
        name=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        authenticated=bundle.signed_by is not None,
        data=data,
        backend=judge.backend,
        provider=card.provider if card.judge_command else judge.provider,
        runs=tuple(runs),
        warnings=(*warnings(runs, sensors), *((PIPES,) if card.judge_command else ())),
        device={**machine_card(), **accelerator(card.device)},
        software=software((*LIBRARIES, *BACKENDS[judge.backend].libraries)),
        started=started,
    )


def warnings(runs: Sequence[BenchRun], sensors: Sensors) -> tuple[str, ...]:
    """Return warnings that a reader needs before using the figures."""
    found = tuple(
        f"{run.precision} at batch {run.batch}: throttled by {', '.join(run.throttled)}; "
        "let the board cool, or choose a power mode that it can hold"
        for run in runs
        if run.throttled
    )
    measured = [run.power for run in runs if run.power]
    if not measured:
        return (*found, NO_POWER + _without_power(sensors))
    if any(power.watts is not None for power in measured):
        return found
    rails = ", ".join(measured[0].rails)
    return (*found, f"energy per image was not measured: only {rails} is, which is a part of this machine's power")


def _without_power(sensors: Sensors) -> str:
    """Return why power was not measured, and what would make that possible."""
    if sensors.locked:
        return f"only root may read this machine's RAPL counters ({', '.join(sensors.locked)})"
    if sensors.watts:
        return f"no sensor answered ({', '.join(sensors.watts)})"
    return f"no INA or RAPL sensor is visible here, and no GPU that NVML knows ({install('nvml')})"
