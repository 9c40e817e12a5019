"""Tests which engines can judge on this machine: each runner of the table runs one small graph."""

from __future__ import annotations

import tempfile
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends.pairing import Runner
from runtime.backends.table import BACKENDS, open_session
from runtime.bundle.manifest import EVALUATION, Graph, InputShape, Manifest
from runtime.bundle.opening import Bundle
from runtime.errors import EdgeproofError
from runtime.files import sha256
from runtime.machine.card import software
from runtime.spec import DataRecord, Frozen, Name, ProviderName, Text, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAPH = b64decode(
    "CAg6hwEKJAoFaW5wdXQSBnBvb2xlZCIRR2xvYmFsQXZlcmFnZVBvb2w6AAobCgZwb29sZWQSBmxvZ2l0cyIHRmxhdHRlbjoAEgVtZWFuc1ogCgVp"
    "bnB1dBIXChUIARIRCgMSAUIKAggDCgIICAoCCAhiGQoGbG9naXRzEg8KDQgBEgkKAxIBQgoCCANCBAoAEBI="
)
"""An ONNX graph: `input` float32 [B, 3, 8, 8] to `logits` [B, 3], the means of the channels."""
NEAR = 1e-2
"""The most by which an answer may differ from the mean; half precision rounds."""


class Surveyed(Frozen):
    """A runner, and whether it can judge on this machine.

    `device` is what it runs on; None if it does not run. Then `missing` says what it lacks, and `hint` what to do.
    `versions` has the installed packages that decide its answers.
    """

    backend: Name
    provider: ProviderName
    device: Text | None
    versions: dict[Text, Text]
    missing: Text = ""
    hint: Text = ""


class _Sample(Bundle):
    """A bundle of GRAPH alone, in memory."""

    def __init__(self) -> None:
        manifest = Manifest(
            name="sample",
            created="",
            input=InputShape(channels=3, height=8, width=8),
            classes=("red", "green", "blue"),
            threat_model=ThreatModel(),
            ships="fp32",
            graphs={"fp32": Graph(forward="model.fp32.onnx", gradient=None, opset=18)},
            evaluation=DataRecord(name=EVALUATION, n=1, sha256=sha256(GRAPH)),
            files={},
        )
        super().__init__(Path("sample"), manifest, {})

    def read(self, name: str) -> bytes:
        return GRAPH


def runners() -> Iterator[Runner]:
    """Yield every runner of the table, including the installed plugins."""
    for name, backend in BACKENDS.items():
        plugins = backend.plugins() if backend.plugins else ()
        yield from (Runner(name, provider) for provider in (*backend.providers, *plugins))


def survey(runner: Runner) -> Surveyed:
    """Run GRAPH on a runner. The record, and not an exception, says what keeps it from judging."""
    libraries = BACKENDS[runner.backend].libraries
    asked = Surveyed(
        backend=runner.backend,
        provider=runner.provider,
        device=None,
        versions=software(("onnxruntime", *libraries) if runner.backend == "ort" else libraries),
    )
    image = np.linspace(0, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="edgeproof-") as scratch,
            open_session(
                _Sample(),
                precision="fp32",
                backend=runner.backend,
                provider=runner.provider,
                gradient=False,
                state=Path(scratch),
            ) as session,
        ):
            error = float(np.abs(np.asarray(session.logits(image)) - image.mean(axis=(2, 3))).max())
            device = session.card().device.partition(", computing in ")[0]  # GRAPH has no product to tell it by
    except EdgeproofError as fault:
        return asked.model_copy(update={"missing": fault.message, "hint": fault.hint or ""})
    if not error <= NEAR:
        return asked.model_copy(
            update={
                "missing": f"its answer to a mean of pixels is off by {error:.2g}",
                "hint": "judge with another runner, and report this to the engine's makers",
            }
        )
    return asked.model_copy(update={"device": device})
