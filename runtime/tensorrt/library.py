"""Loads TensorRT in one of its EDITIONS: TensorRT itself, or TensorRT-RTX, which pip can install."""

from __future__ import annotations

import functools
import importlib
import re
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runtime.errors import EngineFault, MissingEnvironment, OutOfMemory, Page, install
from runtime.tensorrt.memory import LESS

if TYPE_CHECKING:
    from runtime.errors import EdgeproofError
    from runtime.machine.driver import CudaDevice

KEPT = 20
"""Number of messages of TensorRT that are kept."""
SHOWN = 3
NO_MEMORY = re.compile("out ?of ?memory|could not be allocated|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
"""What TensorRT says if the memory of the GPU or the machine ran out."""
NOT_TAKEN = ("SM75",)
"""What TensorRT-RTX names, and its engines leave out by default: it has no float32 matrix product there."""


@dataclass(frozen=True)
class Edition:
    """One of the libraries with TensorRT's API.

    Args:
        name: of its package, and of the provider of `--backend tensorrt` that it is.
        title: what people call it.
        oldest: the first release that takes everything that is exported.
        source: where it comes from, in words.
        mark: prefix of its versions in the key of an engine, which tells the editions apart.
        times_kernels: an engine is built by timing kernels, whose times serve the next build; else kernels are
            compiled where the engine is loaded, for the GPUs that the library names.

    """

    name: str
    title: str
    oldest: tuple[int, int]
    source: str
    mark: str = ""
    times_kernels: bool = True

    @property
    def module(self) -> str:
        """Return what Python calls it."""
        return self.name.replace("-", "_")


TENSORRT = Edition(
    "tensorrt",
    title="TensorRT",
    oldest=(10, 3),  # JetPack 6.1's, the first whose strongly typed networks and parser take all of it
    source="on a Jetson it comes with JetPack 6.1 or later, or its container; elsewhere from NVIDIA, not from PyPI "
    f"alone. On a GeForce or RTX card TensorRT-RTX serves too: {install('rtx')}",
)
TENSORRT_RTX = Edition(
    "tensorrt-rtx",
    title="TensorRT-RTX",
    oldest=(1, 4),
    source=install("rtx"),
    mark="RTX ",
    times_kernels=False,
)
EDITIONS = {each.name: each for each in (TENSORRT, TENSORRT_RTX)}
"""By name, in the order of preference."""


def installed_edition() -> str:
    """Return the first of EDITIONS that is installed, whether or not it works; the first of all if none is."""
    return next((name for name, each in EDITIONS.items() if find_spec(each.module)), next(iter(EDITIONS)))


@dataclass(frozen=True)
class Library:
    """TensorRT, imported.

    Args:
        edition: which.
        module: the Python module.
        listener: an ILogger of it, which keeps what TensorRT says; TensorRT takes the first one of a process for good.
        heard: what it keeps: (severity, text), the newest last.

    """

    edition: Edition
    module: Any
    listener: Any
    heard: deque[tuple[str, str]]

    @property
    def version(self) -> str:
        """Return its version, told apart from other editions': 10.3.0, or RTX 1.7.1.116."""
        return f"{self.edition.mark}{self.module.__version__}"

    def serves(self) -> tuple[str, ...] | None:
        """Return the compute capabilities of the GPUs that it names, as 8.9; None where it serves what NVIDIA has."""
        if self.edition.times_kernels:
            return None
        named = (name for name in self.module.ComputeCapability.__members__ if name not in NOT_TAKEN)
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in named if name.startswith("SM"))

    def said(self) -> str:
        """Return its last errors in its own words, or its warnings where there is no error."""
        for severities in (("INTERNAL_ERROR", "ERROR"), ("WARNING",)):
            texts = [" ".join(text.split()) for severity, text in tuple(self.heard) if severity in severities]
            if texts:
                return "; ".join(texts[-SHOWN:])
        return "it does not say why"

    def fault(self, what: str, hint: str) -> EdgeproofError:
        """Return the error to raise where something failed, in TensorRT's words: `OutOfMemory`, else `EngineFault`."""
        said = f"{what}: {self.said()}"
        return OutOfMemory(said, hint=LESS) if NO_MEMORY.search(said) else EngineFault(said, hint=hint)

    def made(self, name: str) -> Any:
        """Make one of TensorRT's objects that take its listener alone: Builder or Runtime.

        Raises:
            EngineFault: it does not start, as where the driver is too old for this TensorRT's CUDA.

        """
        self.heard.clear()
        try:
            return getattr(self.module, name)(self.listener)
        except TypeError:  # so the bindings say that there is none
            raise self.fault(f"{self.edition.title}'s {name} does not start", "see `nvidia-smi`") from None


@functools.cache
def library_of(module: Any, edition: Edition = TENSORRT) -> Library:
    """Return the library of a module, with the one listener that the process has for it."""
    heard: deque[tuple[str, str]] = deque(maxlen=KEPT)

    class Listener(module.ILogger):  # type: ignore[misc]
        """Keeps errors and warnings; TensorRT calls it, from any thread."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                heard.append((severity.name, msg))

    return Library(edition, module, Listener(), heard)


def load_library(name: str, gpu: CudaDevice) -> Library:
    """Import one of EDITIONS for a GPU; call `driver.probe` before.

    Raises:
        MissingEnvironment: it is not installed, does not load, is too old, or does not serve this GPU.

    """
    edition = EDITIONS[name]
    try:
        module = importlib.import_module(edition.module)
    except (ImportError, OSError) as error:  # the libraries behind it may be missing too
        raise MissingEnvironment(
            f"{edition.title} is not installed: {error}", hint=edition.source, page=Page.TENSORRT
        ) from None
    version = str(module.__version__)
    if _release(version) < edition.oldest:
        raise MissingEnvironment(
            f"this is {edition.title} {version}; edgeproof needs {'.'.join(map(str, edition.oldest))} or later",
            hint=edition.source,
        )
    library = library_of(module, edition)
    served = library.serves()
    if served is not None and gpu.compute_capability not in served:
        raise MissingEnvironment(
            f"{edition.title} {version} does not serve {gpu.name}, of compute capability {gpu.compute_capability}: "
            f"it serves {', '.join(served)}",
            hint="TensorRT itself serves it (docs/tensorrt.md), and so does --backend ort --provider cuda",
        )
    return library


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
