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
"""The number of TensorRT's messages that are kept."""
SHOWN = 3
NO_MEMORY = re.compile("out ?of ?memory|could not be allocated|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
"""Messages of TensorRT when the memory of the GPU or the machine runs out."""
NOT_TAKEN = ("SM75",)
"""A capability that TensorRT-RTX names but does not serve by default: it has no float32 matrix product for it."""


@dataclass(frozen=True)
class Edition:
    """A library with TensorRT's API.

    Args:
        name: the name of its package, and of its provider of `--backend tensorrt`.
        title: its usual name.
        oldest: the first release that accepts everything that `export` writes.
        source: where to get it, in words.
        mark: a prefix of its versions in the key of an engine, which distinguishes the editions.
        times_kernels: whether it builds an engine by timing kernels, whose times speed up the next build. If not, it
            compiles kernels when the engine is loaded, for the GPUs that the library names.

    """

    name: str
    title: str
    oldest: tuple[int, int]
    source: str
    mark: str = ""
    times_kernels: bool = True

    @property
    def module(self) -> str:
        """Return the name of its Python module."""
        return self.name.replace("-", "_")


TENSORRT = Edition(
    "tensorrt",
    title="TensorRT",
    oldest=(10, 3),  # JetPack 6.1's, the first with strongly typed networks and a parser that suffice
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
"""The editions by name, in the order of preference."""


def installed_edition() -> str:
    """Return the first of EDITIONS that is installed, whether or not it works; the first of all if none is."""
    return next((name for name, each in EDITIONS.items() if find_spec(each.module)), next(iter(EDITIONS)))


@dataclass(frozen=True)
class Library:
    """An imported TensorRT.

    Args:
        edition: its edition.
        module: the Python module.
        listener: the ILogger that keeps TensorRT's messages. TensorRT uses the first one of a process until its end.
        heard: the kept messages as (severity, text), the newest last.

    """

    edition: Edition
    module: Any
    listener: Any
    heard: deque[tuple[str, str]]

    @property
    def version(self) -> str:
        """Return its version, with the edition's mark: 10.3.0, or RTX 1.7.1.116."""
        return f"{self.edition.mark}{self.module.__version__}"

    def serves(self) -> tuple[str, ...] | None:
        """Return the compute capabilities that it serves, such as 8.9; None if it serves all of NVIDIA's."""
        if self.edition.times_kernels:
            return None
        named = (name for name in self.module.ComputeCapability.__members__ if name not in NOT_TAKEN)
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in named if name.startswith("SM"))

    def said(self) -> str:
        """Return its last error messages, or its warnings if there are no errors."""
        for severities in (("INTERNAL_ERROR", "ERROR"), ("WARNING",)):
            texts = [" ".join(text.split()) for severity, text in tuple(self.heard) if severity in severities]
            if texts:
                return "; ".join(texts[-SHOWN:])
        return "it does not say why"

    def fault(self, what: str, hint: str) -> EdgeproofError:
        """Return the error for a failure, with TensorRT's messages: `OutOfMemory` or else `EngineFault`."""
        said = f"{what}: {self.said()}"
        return OutOfMemory(said, hint=LESS) if NO_MEMORY.search(said) else EngineFault(said, hint=hint)

    def made(self, name: str) -> Any:
        """Make an object of TensorRT that needs only the listener: a Builder or a Runtime.

        Raises:
            EngineFault: it does not start, as with a driver that is too old for this TensorRT's CUDA.

        """
        self.heard.clear()
        try:
            return getattr(self.module, name)(self.listener)
        except TypeError:  # the bindings raise this if there is no object
            raise self.fault(f"{self.edition.title}'s {name} does not start", "see `nvidia-smi`") from None


@functools.cache
def library_of(module: Any, edition: Edition = TENSORRT) -> Library:
    """Return the library of a module, with the process's only listener for it."""
    heard: deque[tuple[str, str]] = deque(maxlen=KEPT)

    class Listener(module.ILogger):  # type: ignore[misc]
        """Keeps errors and warnings. TensorRT calls it from any thread."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                heard.append((severity.name, msg))

    return Library(edition, module, Listener(), heard)


def load_library(name: str, gpu: CudaDevice) -> Library:
    """Import one of EDITIONS for a GPU. `driver.probe` must be called first.

    Raises:
        MissingEnvironment: the edition is not installed, does not load, is too old, or does not serve this GPU.

    """
    edition = EDITIONS[name]
    try:
        module = importlib.import_module(edition.module)
    except (ImportError, OSError) as error:  # its native libraries may be missing
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
