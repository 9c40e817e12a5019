"""manifest.json: what is in a bundle, and what is claimed of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from runtime.images.preprocessing import Preprocessing
from runtime.spec import DataRecord, Digest, Document, Frozen, Gate, Grown, Name, Precision, Text, ThreatModel, to_json

MANIFEST = "manifest.json"
EVALUATION = "evaluation.npz"
REFERENCE = "reference.npz"
SIGNATURE = "signature.json"
OTHER_MAKE = "the bundle is damaged, or made by another version"


def _plain_name(name: str) -> str:
    """Accept a file directly inside the bundle, nothing that climbs out of it or hides."""
    if name.startswith(("/", "\\")):
        raise ValueError(f"{name!r} is an absolute path")
    if ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"{name!r} climbs out of the bundle")
    if not name or name.startswith(".") or any(sign in name for sign in "/\\") or not name.isprintable():
        raise ValueError(f"{name!r} is not a plain file name")
    if name in (MANIFEST, SIGNATURE):
        raise ValueError(f"{name} cannot list itself or its signature")
    return name


def _known_precision(name: str) -> str:
    """Accept what a graph may be called."""
    if name not in get_args(Precision):
        raise ValueError(f"{name!r} is none of {', '.join(get_args(Precision))}")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
KnownPrecision = Annotated[str, AfterValidator(_known_precision)]


class FileEntry(Frozen):
    """Digest and size in bytes of one file."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class InputShape(Frozen):
    """One image: float32 [channels, height, width] in [0, 1], fed as `input` with a batch axis before."""

    channels: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]


class Parity(Frozen):
    """How far the graph may be, and was, from what it was made of, on evaluation images.

    That is the training framework; for a packed model the file it came as, which has no gradient to compare.
    """

    max_logit_error: float
    max_logit_error_limit: float
    prediction_agreement: float
    prediction_agreement_limit: float
    median_gradient_error: float | None = None
    median_gradient_error_limit: float | None = None


class Calibrated(Frozen):
    """What set the ranges of a quantised graph, and which of its nodes were left in float16."""

    data: DataRecord
    method: Text
    kept_fp16: tuple[Text, ...] = ()


class Graph(Grown):
    """The files of one precision: the classifier, and the graph of its input gradient.

    `staircases` are the nodes through which that gradient is a surrogate; what decides anything is read from the graph.
    """

    later: ClassVar[tuple[str, ...]] = ("staircases",)
    forward: FileName
    gradient: FileName | None
    opset: int
    parity: Parity | None = None
    calibration: Calibrated | None = None
    staircases: tuple[Text, ...] = ()


class Reference(Frozen):
    """What training measured on its own hold-out images, for the checkpoint exported: fractions of n."""

    checkpoint: Text
    n: int
    clean: float
    pgd: float


class Provenance(Grown):
    """Where the artifact comes from. Digests are of file contents; the recipe is the resolved one.

    `extra_data` are further training images, of which every batch had a share. `teacher_architecture` is null where
    no teacher taught, or its file was not there any more. `start_sha256` is of the checkpoint that an [int8] run went
    on from.
    """

    later: ClassVar[tuple[str, ...]] = ("extra_data", "start_sha256", "teacher_architecture")
    recipe: Document
    recipe_sha256: Digest
    checkpoint_sha256: Digest
    start_sha256: Digest | None = None
    teacher_sha256: Digest | None
    teacher_architecture: Text | None = None
    training_data: DataRecord
    extra_data: DataRecord | None = None
    software: dict[Text, Text]


class Packed(Frozen):
    """The ONNX file that a bundle was packed from, and everything that was done to its graph, in words.

    `sha256` is of the file; where its weights lie beside it, of the list of all their digests.
    """

    file: Text
    sha256: Digest
    opset: int
    changes: tuple[Text, ...]


class Manifest(Grown):
    """manifest.json: what is in the bundle and what is claimed of it.

    `preprocessing` is what was done to the pictures of a folder; other folders are brought to their size by it.
    """

    later: ClassVar[tuple[str, ...]] = ("preprocessing",)
    schema_: Literal["edgeproof.bundle/1"] = Field(alias="schema", default="edgeproof.bundle/1")
    name: Name
    version: Annotated[int, Field(ge=1)] = 1
    created: Text
    input: InputShape
    preprocessing: Preprocessing | None = None
    classes: Annotated[tuple[Text, ...], Field(min_length=2)]
    threat_model: ThreatModel
    ships: KnownPrecision
    graphs: dict[KnownPrecision, Graph]
    evaluation: DataRecord
    gate: Gate = Gate()
    reference: Reference | None = None
    provenance: Provenance | None = None
    packed: Packed | None = None
    files: dict[FileName, FileEntry]

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json: sorted, indented, one newline at the end."""
        return to_json(self)
