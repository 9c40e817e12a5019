"""The sensors of a machine: power by rail, temperature by zone, clocks, and what lowers a clock.

They are found once and then read repeatedly. Sources: the kernel's interfaces hwmon (INA3221, INA238), thermal, cpufreq
and powercap, NVIDIA's soctherm events, and NVML. A sensor that does not answer is left out of a sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING

from runtime.machine.board import CPUFREQ, DEVFREQ, GPU_CLOCKS
from runtime.machine.nvml import first_gpu
from runtime.machine.system_files import ROOT, found, number, read

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.machine.nvml import Gpu

Readings = dict[str, float]
Read = Callable[[], "float | None"]

BRAKES = ("*-throttle-alert", "hot-surface-alert", "cpufreq-*", "devfreq-*", "thermal-*", "Processor")
"""Types of cooling devices that lower a clock, unlike fans."""
GPU = "GPU"
RAPL = "sys/class/powercap/intel-rapl:*"
"""Counters of energy. Those named package-N count a whole package; others count a part of one, or everything."""
TOTALS = (
    ("VIN",),
    ("VDD_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
)
"""Rails whose sum is the board's power: Thor, Orin Nano and NX, AGX Orin, Thor again. VIN_SYS_5V0 feeds all others."""


@dataclass(frozen=True)
class Sample:
    """The readings of the sensors at one moment, each by its name.

    Args:
        at: seconds of a monotonic clock.
        watts: power.
        joules: counters of energy, which rise, and restart from 0 at `Sensors.wraps`.
        celsius: temperatures.
        megahertz: clocks.
        caps: the highest clocks allowed, in MHz.
        brakes: the names of what lowers a clock now.
        events: counters of events that lower a clock.

    """

    at: float
    watts: Readings = field(default_factory=dict)
    joules: Readings = field(default_factory=dict)
    celsius: Readings = field(default_factory=dict)
    megahertz: Readings = field(default_factory=dict)
    caps: Readings = field(default_factory=dict)
    brakes: frozenset[str] = frozenset()
    events: Readings = field(default_factory=dict)


@dataclass(frozen=True)
class Sensors:
    """The sensors of a machine: for each kind, functions that read them, by name.

    Args:
        wraps: the joules at which each counter of energy restarts from 0.
        locked: the counters of energy that this user may not read.

    """

    watts: Mapping[str, Read]
    joules: Mapping[str, Read]
    celsius: Mapping[str, Read]
    megahertz: Mapping[str, Read]
    caps: Mapping[str, Read]
    brakes: Mapping[str, Read]
    events: Mapping[str, Read]
    gpu: Gpu | None
    wraps: Readings
    locked: tuple[str, ...] = ()

    def sample(self, at: float) -> Sample:
        """Read all sensors."""
        brakes = {name for name, value in _all(self.brakes).items() if value > 0}
        reasons = self.gpu.throttles() if self.gpu else ()
        return Sample(
            at=at,
            watts=_all(self.watts),
            joules=_all(self.joules),
            celsius=_all(self.celsius),
            megahertz=_all(self.megahertz),
            caps=_all(self.caps),
            brakes=frozenset(brakes | {f"{GPU}: {reason}" for reason in reasons}),
            events=_all(self.events),
        )


def find_sensors(root: Path = ROOT, gpu: Callable[[], Gpu | None] = first_gpu) -> Sensors:
    """Return the sensors of the machine whose files are under `root`; there may be none."""
    card, zones, clocks = gpu(), _named(root, "sys/class/thermal/thermal_zone*"), _clocks(root)
    packages = {_name(path): path for path in found(root, RAPL) if _name(path).startswith("package")}
    counters = {name: path for name, path in packages.items() if number(path / "energy_uj") is not None}
    return Sensors(
        watts=_rails(root) | ({GPU: card.watts} if card else {}),
        joules={name: _scaled(path / "energy_uj", 1e-6) for name, path in counters.items()},
        celsius={name: _scaled(path / "temp", 1e-3) for name, path in zones.items()}
        | ({GPU: card.celsius} if card else {}),
        megahertz={name: _scaled(path / f"{prefix}cur_freq", per) for name, (path, prefix, per) in clocks.items()}
        | ({GPU: card.megahertz} if card else {}),
        caps={name: _scaled(path / f"{prefix}max_freq", per) for name, (path, prefix, per) in clocks.items()},
        brakes=_brakes(root),
        events=_events(root),
        gpu=card,
        wraps={name: (number(path / "max_energy_range_uj") or 0) / 1e6 for name, path in counters.items()},
        locked=tuple(name for name in packages if name not in counters),
    )


def whole(names: Mapping[str, object]) -> tuple[str, ...]:
    """Return the rails whose sum is the power of the whole board; none if that is unknown."""
    return next((rails for rails in TOTALS if all(rail in names for rail in rails)), ())


def _rails(root: Path) -> dict[str, Read]:
    """Return the rails of the INA chips.

    An INA3221 has three rails, each with a label, a voltage and a current; its other voltages are of shunts.
    An INA238 has one rail without a label, which is the board's input.
    """
    rails: dict[str, Read] = {}
    for chip in found(root, "sys/class/hwmon/hwmon*"):
        kind = read(chip / "name") or ""
        if kind == "ina238":
            rails[read(chip / "in1_label") or "VIN"] = _scaled(chip / "power1_input", 1e-6)
        for label in found(chip, "in*_label") if kind.startswith("ina3221") else ():
            channel, name = re.sub(r"\D", "", label.name), read(label) or "NC"
            current = chip / f"curr{channel}_input"
            if name != "NC" and "shunt" not in name and current.exists():
                rails[name] = partial(_power, chip / f"in{channel}_input", current)
    return rails


def _power(millivolts: Path, milliamperes: Path) -> float | None:
    volts, amperes = number(millivolts), number(milliamperes)
    return None if volts is None or amperes is None else volts * amperes / 1e6


def _clocks(root: Path) -> dict[str, tuple[Path, str, float]]:
    """Return for every clock its directory, the prefix of its files' names, and their unit in MHz."""
    gpus = [path for pattern in GPU_CLOCKS for path in found(root, f"{DEVFREQ}/{pattern}")]
    cores = found(root, CPUFREQ)
    return {path.name: (path, "", 1e-6) for path in gpus} | {path.name: (path, "scaling_", 1e-3) for path in cores}


def _brakes(root: Path) -> dict[str, Read]:
    devices = _named(root, "sys/class/thermal/cooling_device*")
    return {
        name: _scaled(path / "cur_state", 1)
        for name, path in devices.items()
        if any(fnmatch(name.partition(" ")[0], brake) for brake in BRAKES)
    }


def _events(root: Path) -> dict[str, Read]:
    """Return the counters of over-current and under-voltage (Jetson) and of thermal throttling (x86)."""
    over = found(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")
    hot = found(root, "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")
    events = {path.name.removesuffix("_event_cnt"): path for path in over}
    events |= {f"{path.parts[-3]} {path.name.removesuffix('_throttle_count')}": path for path in hot}
    return {name: _scaled(path, 1) for name, path in events.items()}


def _named(root: Path, pattern: str) -> dict[str, Path]:
    """Return directories by the content of their file `type`, with a number if several have the same."""
    named: dict[str, Path] = {}
    for path in found(root, pattern):
        name = read(path / "type") or path.name
        named[name if name not in named else f"{name} {re.sub(r'[^0-9]', '', path.name)}"] = path
    return named


def _name(counter: Path) -> str:
    return read(counter / "name") or counter.name


def _scaled(path: Path, factor: float) -> Read:
    def value() -> float | None:
        raw = number(path)
        return None if raw is None else raw * factor

    return value


def _all(readers: Mapping[str, Read]) -> Readings:
    values = {name: reader() for name, reader in readers.items()}
    return {name: value for name, value in values.items() if value is not None}
