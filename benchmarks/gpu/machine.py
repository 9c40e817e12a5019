"""What a run is of: the card, the machine, the libraries and the commit."""

import shutil
import subprocess
from pathlib import Path

import torch

from runtime.machine.card import machine_card, software

ROOT = Path(__file__).resolve().parents[2]
COMMIT = ROOT / ".whl" / "base" / "COMMIT"
"""Left by `prepare`: a copy of the working tree may come without its history."""
LIBRARIES = (
    "edgeproof", "torch", "torchvision", "triton", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu",
    "tensorrt", "tensorrt-rtx", "cuda-bindings", "pycuda", "cupy-cuda13x", "lightning-fabric", "array-api-compat",
    "nvidia-cudnn-cu13", "autoattack", "torchattacks", "pytest",
)  # fmt: skip


def card(device: str) -> dict[str, str | int]:
    """Return name, driver, CUDA, compute capability and memory of the GPU; nothing on a CPU."""
    if device != "cuda" or not torch.cuda.is_available():
        return {}
    facts = torch.cuda.get_device_properties(0)
    found: dict[str, str | int] = {
        "name": facts.name,
        "compute_capability": f"{facts.major}.{facts.minor}",
        "memory_bytes": facts.total_memory,
        "multiprocessors": facts.multi_processor_count,
        "cuda": torch.version.cuda or "",
        "cudnn": torch.backends.cudnn.version() or 0,
    }
    known = machine_card()
    return found | {"driver": known["driver"]} if "driver" in known else found


def commit() -> str | None:
    """Return the commit of the code, marked where files were changed since; None where nobody knows."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        asked = subprocess.run(
            [git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.returncode == 0:
            return asked.stdout.strip()
    return COMMIT.read_text().strip() if COMMIT.is_file() else None


def libraries() -> dict[str, str]:
    """Return the versions of what was used."""
    return software(LIBRARIES)
