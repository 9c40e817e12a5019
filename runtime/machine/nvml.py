"""Facts and sensors of the first GPU, from NVIDIA's management library (NVML).

Without the extra `nvml` or a driver there are none. A Jetson Orin supports some of them, Jetson Thor and GPU servers
most. Unsupported ones are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

THROTTLES = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
"""NVML's reasons for a low clock that are due to load or heat, and not to idling."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU, by NVML.

    Args:
        library: the module pynvml, initialised.
        handle: the device's handle.

    """

    library: Any
    handle: Any

    def facts(self) -> dict[str, str]:
        """Return name, driver and the newest CUDA that the driver supports, as far as they are known."""
        library = self.library
        cuda = self._ask(library.nvmlSystemGetCudaDriverVersion)
        known = {
            "gpu": self._ask(library.nvmlDeviceGetName, self.handle),
            "driver": self._ask(library.nvmlSystemGetDriverVersion),
            "cuda": cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
        }
        return {name: str(value) for name, value in known.items() if value}

    def watts(self) -> float | None:
        """Return the GPU's power in watts."""
        milliwatts = self._ask(self.library.nvmlDeviceGetPowerUsage, self.handle)
        return None if milliwatts is None else milliwatts / 1000

    def celsius(self) -> float | None:
        """Return the GPU's temperature."""
        degrees = self._ask(self.library.nvmlDeviceGetTemperature, self.handle, self.library.NVML_TEMPERATURE_GPU)
        return None if degrees is None else float(degrees)

    def megahertz(self) -> float | None:
        """Return the clock of the GPU's multiprocessors."""
        clock = self._ask(self.library.nvmlDeviceGetClockInfo, self.handle, self.library.NVML_CLOCK_SM)
        return None if clock is None else float(clock)

    def throttles(self) -> tuple[str, ...]:
        """Return the reasons why its clocks are lowered now, by NVML's names."""
        reasons = self._ask(self.library.nvmlDeviceGetCurrentClocksThrottleReasons, self.handle) or 0
        return tuple(name for name in THROTTLES if reasons & getattr(self.library, f"nvmlClocksThrottleReason{name}"))

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except self.library.NVMLError:
            return None


def first_gpu() -> Gpu | None:
    """Return the first GPU; None if there is none, or if NVML is not available."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return None
