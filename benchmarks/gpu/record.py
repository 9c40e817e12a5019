"""What a run on a card leaves: one JSON file, written anew after every part."""

from typing import Annotated, Literal

from pydantic import Field

from runtime.spec import Document, Frozen, Name, Text

Seconds = Annotated[float, Field(ge=0)]
State = Literal["waiting", "running", "done", "failed", "timed out", "not there", "skipped"]
"""`not there`: what a part needs is missing on this machine. `skipped`: there was no time left, or nobody asked."""


class PartRecord(Frozen):
    """One part.

    Args:
        name: of the part.
        state: how it went.
        reason: of what is not done, in words.
        exit_code: of its process; negative by a signal, None where there was none.
        seconds: what it took.
        limit: seconds after which it is ended.
        figures: what it measured, also before it failed or was ended.
        tail: the last lines of its output.

    """

    name: Name
    state: State = "waiting"
    reason: Text = ""
    exit_code: int | None = None
    seconds: Seconds = 0.0
    limit: Seconds = 0.0
    figures: Document = Field(default_factory=dict)
    tail: tuple[Text, ...] = ()


class GpuRecord(Frozen):
    """The file: machine, card and software, and every part in the order of its worth.

    Args:
        started: UTC, ISO 8601.
        device: on which the parts ran, `cuda` or `cpu`.
        tiny: whether in sizes that only try the script.
        commit: of the code; None where nobody knows.
        budget: seconds that all parts together had.
        seconds: that they took so far.
        card: name, driver, CUDA and memory of the GPU; empty where there is none.
        machine: processor, cores and system.
        software: versions of the libraries.
        parts: those done, the one running and those that wait.

    """

    schema_: Literal["edgeproof.gpu-benchmark/1"] = Field(alias="schema", default="edgeproof.gpu-benchmark/1")
    started: Text
    device: Literal["cuda", "cpu"]
    tiny: bool
    commit: Text | None
    budget: Seconds
    seconds: Seconds
    card: Document
    machine: Document
    software: dict[Text, Text]
    parts: tuple[PartRecord, ...]
