"""Asks the CUDA driver, through ctypes, which GPU there is.

Without a GPU, TensorRT ends with a segmentation fault, so this comes before any object of TensorRT.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import MissingEnvironment
from runtime.files import sha256

LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
NAME_BYTES, UUID_BYTES = 256, 16
MACHINE_FILES = (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"))
"""Files that distinguish machines with the same GPU: the id of a Linux installation, and a Jetson's serial number."""


@dataclass(frozen=True)
class CudaDevice:
    """A CUDA device.

    Args:
        name: the driver's name of it.
        uuid: in hexadecimal.
        compute_capability: such as 8.7.
        cuda: the newest CUDA that the driver supports, such as 12.6.
        memory: its total memory in bytes.

    """

    name: str
    uuid: str
    compute_capability: str
    cuda: str
    memory: int = 0

    def identity(self) -> str:
        """Return a digest that differs for every GPU and every machine."""
        machine = [path.read_bytes() for path in MACHINE_FILES if path.is_file()]
        return sha256(b"\0".join([self.name.encode(), self.uuid.encode(), *machine]))


def probe() -> CudaDevice:
    """Return the first device.

    Raises:
        MissingEnvironment: the driver is missing, does not work, or has no device.

    """
    driver = _driver()
    count = ctypes.c_int()
    _check(driver, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise MissingEnvironment("the CUDA driver finds no GPU", hint="check CUDA_VISIBLE_DEVICES and `nvidia-smi`")
    return _describe(driver, 0)


def current() -> CudaDevice:
    """Return the device of the CUDA context that is current in this thread.

    Raises:
        MissingEnvironment: the driver is missing, or no context is current.

    """
    driver = _driver()
    device = ctypes.c_int()
    _check(driver, "cuCtxGetDevice", ctypes.byref(device))
    return _describe(driver, device.value)


def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise MissingEnvironment(
            f"there is no CUDA driver here: {error}",
            hint="run it on a machine with an NVIDIA GPU; in a container, with --runtime nvidia or --gpus all",
        ) from None
    _check(driver, "cuInit", ctypes.c_uint(0))
    return driver


def _describe(driver: ctypes.CDLL, ordinal: int) -> CudaDevice:
    device, version, value, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name, uuid = ctypes.create_string_buffer(NAME_BYTES), ctypes.create_string_buffer(UUID_BYTES)
    _check(driver, "cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal))
    _check(driver, "cuDeviceGetName", name, ctypes.c_int(NAME_BYTES), device)
    _check(driver, "cuDeviceGetUuid_v2", uuid, device)
    _check(driver, "cuDriverGetVersion", ctypes.byref(version))
    _check(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = []
    for attribute in (MAJOR, MINOR):
        _check(driver, "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), device)
        capability.append(value.value)
    return CudaDevice(
        name=name.value.decode(errors="replace"),
        uuid=uuid.raw.hex(),
        compute_capability=".".join(map(str, capability)),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory=memory.value,
    )


def _check(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    try:
        code = getattr(driver, function)(*arguments)
    except AttributeError:
        raise MissingEnvironment(
            f"the CUDA driver is too old: it has no {function}", hint="update it: NVIDIA's driver, or JetPack"
        ) from None
    if code != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        said = text.value.decode() if text.value else "unknown error"
        raise MissingEnvironment(
            f"the CUDA driver does not work: {function} returned {code}, {said}",
            hint="see `nvidia-smi`; after an update of the driver, restart the machine",
        )
