"""manifest.json: the content of a bundle, and what it claims."""

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
    """Accept the name of a file directly in the bundle. Refuse a path, a hidden file, and the manifest itself."""
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
    """Accept the name of a known precision."""
    if name not in get_args(Precision):
        raise ValueError(f"{name!r} is none of {', '.join(get_args(Precision))}")
    return name


FileName = Annotated[str, AfterValidator(_plain_name)]
KnownPrecision = Annotated[str, AfterValidator(_known_precision)]


class FileEntry(Frozen):
    """The digest of a file, and its size in bytes."""

    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class InputShape(Frozen):
    """The shape of an image: float32 [channels, height, width] in [0, 1]. The input `input` has a batch axis first."""

    channels: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]


class Parity(Frozen):
    """Differences between a graph and its source on evaluation images, each with the limit that it must meet.

    The source is the model in the training framework. For a packed model it is the original file, without a gradient.
    """

    max_logit_error: float
    max_logit_error_limit: float
    prediction_agreement: float
    prediction_agreement_limit: float
    median_gradient_error: float | None = None
    median_gradient_error_limit: float | None = None


class Calibrated(Frozen):
    """The images and method that set the ranges of a quantised graph, and the nodes that stayed in float16."""

    data: DataRecord
    method: Text
    kept_fp16: tuple[Text, ...] = ()


class Graph(Grown):
    """The files of one precision: the classifier's graph and its gradient graph.

    `staircases` names the nodes through which that gradient is a surrogate. It is for readers only: every decision uses
    the graph itself.
    """

    later: ClassVar[tuple[str, ...]] = ("staircases",)
    forward: FileName
    gradient: FileName | None
    opset: int
    parity: Parity | None = None
    calibration: Calibrated | None = None
    staircases: tuple[Text, ...] = ()


class Reference(Frozen):
    """Accuracies of the exported checkpoint on n hold-out images, measured in training, as fractions."""

    checkpoint: Text
    n: int
    clean: float
    pgd: float


class Provenance(Grown):
    """The origin of the artifact. Digests are of file contents; the recipe is the resolved one.

    `extra_data` are further training images, with a share in every batch. `teacher_architecture` is null if there was
    no teacher, or if its file was missing at export. `start_sha256` is the digest of the checkpoint from which an
    [int8] run started.
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
    """The ONNX file from which a bundle was packed, and all changes to its graph, in words.

    `sha256` is the file's digest or, if its weights are in other files, the digest of the list of all their digests.
    """

    file: Text
    sha256: Digest
    opset: int
    changes: tuple[Text, ...]


class Manifest(Grown):
    """manifest.json: the content of the bundle, and what it claims.

    `preprocessing` was applied to the pictures of a folder; pictures of other folders get the same.
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
