"""Network to bundle, with a network small enough for every test to export it anew."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from export.bundle.write import Claims, Precision, write_bundle
from export.gradient import gradient_graph
from export.graph.passes import to_bytes
from export.limits import refuse_beyond_limits
from export.network.export_network import export_network
from export.network.parity import measure_parity, reference_logits
from export.network.to_onnx import to_onnx
from export.precision.calibrate import Calibration
from export.precision.table import PRECISIONS
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import EVALUATION, REFERENCE, SIGNATURE, Graph, InputShape, Manifest, Provenance, Reference
from runtime.bundle.model_card import MODEL_CARD, model_card
from runtime.bundle.opening import Bundle, open_bundle
from runtime.bundle.signing import PRIVATE, PUBLIC, load_private_key, load_trust, new_key
from runtime.errors import BadData, BadModel, UsageFault
from runtime.images.image_set import ImageSet
from runtime.images.npz import read_npz
from runtime.spec import DataRecord, Gate, ThreatModel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.export.conftest import Work

SHAPE = InputShape(channels=2, height=8, width=8)
CLAIMS = Claims(
    name="tiny",
    classes=("cat", "dog", "owl"),
    threat_model=ThreatModel(eps="8/255"),
    version=3,
    gate=Gate(fail_under="40%"),
    reference=Reference(checkpoint="best", n=500, clean=0.81, pgd=0.47),
    provenance=Provenance(
        recipe={"name": "tiny"},
        recipe_sha256="0" * 64,
        checkpoint_sha256="1" * 64,
        teacher_sha256=None,
        training_data=DataRecord(name="animals", n=1000, sha256="2" * 64),
        software={"torch": "2"},
    ),
    created="2026-01-01T00:00:00+00:00",
)


class Tiny(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(6 * 3 * 3, classes)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny().eval()


@pytest.fixture(scope="module")
def evaluation() -> ImageSet:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 2, 8, 8), dtype=np.uint8)
    return ImageSet("held out", images, random.integers(0, 3, 40), np.arange(100, 140))


@pytest.fixture(scope="module")
def graphs(network: nn.Module) -> tuple[Any, Any]:
    forward = to_onnx(network, SHAPE)
    return forward.model, gradient_graph(forward)


@pytest.fixture(scope="module")
def bundle(network: nn.Module, evaluation: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("export") / "bundle"
    manifest = export_network(network, shape=SHAPE, evaluation=evaluation, claims=CLAIMS, out=out)
    opened = open_bundle(out)
    assert opened.manifest == manifest
    return opened


def test_exported_bundle_opens_and_says_what_it_was_told(bundle: Bundle, evaluation: ImageSet) -> None:
    manifest = bundle.manifest
    assert manifest.input == InputShape(channels=2, height=8, width=8)
    assert (manifest.version, manifest.ships, manifest.gate) == (3, "fp32", CLAIMS.gate)
    assert manifest.evaluation == DataRecord(name="held out", n=40, sha256=evaluation.sha256)
    assert set(manifest.files) == {
        "model.fp32.onnx",
        "model.fp32.grad.onnx",
        EVALUATION,
        REFERENCE,
        MODEL_CARD,
    }
    parity = manifest.graphs["fp32"].parity
    assert parity is not None
    assert parity.max_logit_error < 1e-5
    assert parity.prediction_agreement == 1
    assert parity.median_gradient_error < 1e-5


def test_graphs_in_the_bundle_answer_as_the_network(bundle: Bundle, network: nn.Module, evaluation: ImageSet) -> None:
    graph = bundle.manifest.graphs["fp32"]
    assert graph.gradient
    session = OrtSession(bundle.read(graph.forward), bundle.read(graph.gradient), precision="fp32")
    images = read_npz(bundle.read(EVALUATION), layout="nchw")
    assert images.sha256 == evaluation.sha256
    np.testing.assert_array_equal(images.ids, evaluation.ids)
    with np.load(bundle.path / REFERENCE, allow_pickle=False) as reference:
        expected = reference["logits"]
    np.testing.assert_allclose(session.logits(images.as_float(slice(None))), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(expected, reference_logits(network, evaluation))


def test_same_network_gives_the_same_bundle(
    bundle: Bundle, network: nn.Module, evaluation: ImageSet, tmp_path: Path
) -> None:
    again = export_network(network, shape=SHAPE, evaluation=evaluation, claims=CLAIMS, out=tmp_path / "bundle")
    assert again == bundle.manifest


def test_card_names_threat_figures_digests_and_the_command(bundle: Bundle) -> None:
    card = bundle.read(MODEL_CARD).decode()
    for words in ("8/255", "81.0 %", "47.0 %", "edgeproof verify", "cat, dog, owl", "animals"):
        assert words in card
    for name, entry in bundle.manifest.files.items():
        assert name == MODEL_CARD or entry.sha256 in card


def test_card_is_its_manifest_in_words_also_when_that_is_read_back(bundle: Bundle) -> None:
    assert bundle.read(MODEL_CARD).decode() == model_card(bundle.manifest)
    more = {"int8": Graph(forward="model.fp32.onnx", gradient=None, opset=18), **bundle.manifest.graphs}
    several = bundle.manifest.model_copy(update={"graphs": more})
    assert model_card(several) == model_card(Manifest.model_validate_json(several.to_json()))


def front_matter(card: str) -> Any:
    start, metadata, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(metadata)


def test_card_carries_its_figures_as_a_model_index(bundle: Bundle) -> None:
    metadata = front_matter(bundle.read(MODEL_CARD).decode())
    assert metadata["pipeline_tag"] == "image-classification"
    (model,) = metadata["model-index"]
    result, same = model["results"]
    assert (model["name"], result["task"]["type"]) == ("tiny", "image-classification")
    assert result["dataset"] == {"name": "animals, 500 hold-out images", "type": "animals"}
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {
        "clean accuracy": 0.81,
        "accuracy under PGD, linf, eps 8/255": 0.47,
    }
    assert same["dataset"] == {"name": "held out, 40 images", "type": "held out"}
    assert {metric["name"]: metric["value"] for metric in same["metrics"]} == {
        "same prediction as the trained network, fp32": 1.0
    }


@pytest.mark.parametrize("name", ["a: b", "'\"", "- x\n---\n", "ü 🦉 \\ \x85 \x9f \u2028", "{}", "#", "null", "1e3"])
def test_card_stays_yaml_whatever_the_data_is_called(bundle: Bundle, name: str) -> None:
    origin = bundle.manifest.provenance
    assert origin
    origin = origin.model_copy(update={"training_data": DataRecord.model_construct(name=name, n=1, sha256="2" * 64)})
    metadata = front_matter(model_card(bundle.manifest.model_copy(update={"provenance": origin})))
    assert metadata["model-index"][0]["results"][0]["dataset"]["type"] == name


def test_export_with_a_key_signs_the_bundle(graphs: tuple[Any, Any], evaluation: ImageSet, tmp_path: Path) -> None:
    new_key(tmp_path / "keys")
    write_bundle(
        tmp_path / "bundle",
        precisions={"fp32": Precision(*graphs)},
        evaluation=evaluation,
        reference_logits=np.zeros((40, 3), np.float32),
        claims=CLAIMS,
        key=load_private_key(tmp_path / "keys" / PRIVATE),
    )
    opened = open_bundle(tmp_path / "bundle", load_trust(tmp_path / "keys" / PUBLIC))
    assert opened.signed_by
    assert SIGNATURE not in opened.manifest.files


def test_card_of_a_model_without_origin_says_so(graphs: tuple[Any, Any], evaluation: ImageSet, tmp_path: Path) -> None:
    claims = Claims(name="found", classes=CLAIMS.classes, threat_model=ThreatModel())
    logits = np.zeros((40, 3), np.float32)
    write_bundle(
        tmp_path / "b",
        precisions={"fp32": Precision(*graphs)},
        evaluation=evaluation,
        reference_logits=logits,
        claims=claims,
    )
    card = (tmp_path / "b" / MODEL_CARD).read_text()
    assert "None were recorded" in card
    assert "model-index" not in front_matter(card)
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["provenance"] is None


def test_each_graph_is_prepared_once_and_opened_once_for_each_use(
    network: nn.Module, evaluation: ImageSet, tmp_path: Path, work: Work
) -> None:
    right = reference_logits(network, evaluation).argmax(axis=1)
    wrong = replace(evaluation, labels=(right + 1) % 3)  # int8 has nothing to lose, so no layer is kept
    export_network(
        network,
        shape=SHAPE,
        evaluation=evaluation,
        claims=CLAIMS,
        out=tmp_path / "bundle",
        precisions=("fp32", "int8"),
        calibration=Calibration(evaluation, keep=None, held=wrong),
    )
    assert (len(work.prepared), len(set(work.prepared))) == (2, 2)
    # As it came; as it ships, in whole batches and in pieces; its gradient.
    assert (len(work.opened), max(Counter(work.opened).values())) == (2 * 4, 2)
    assert work.still_open == 0


def test_directory_that_holds_something_is_refused_before_any_work(evaluation: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageFault):
        export_network(nn.Identity(), shape=SHAPE, evaluation=evaluation, claims=CLAIMS, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_failed_export_leaves_nothing_behind(evaluation: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="4 logits, but 3 class names"):
        export_network(Tiny(4).eval(), shape=SHAPE, evaluation=evaluation, claims=CLAIMS, out=tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_label_beyond_the_classes_is_refused(network: nn.Module, evaluation: ImageSet, tmp_path: Path) -> None:
    wrong = replace(evaluation, labels=np.full(40, 3))
    with pytest.raises(BadData, match="label 3"):
        export_network(network, shape=SHAPE, evaluation=wrong, claims=CLAIMS, out=tmp_path / "bundle")


def parity_against(other: nn.Module, graphs: tuple[Any, Any], evaluation: ImageSet) -> Any:
    session = OrtSession(*map(to_bytes, graphs), precision="fp32")
    return measure_parity(other, session, evaluation, reference_logits(other, evaluation), PRECISIONS["fp32"].limits)


def test_graph_of_another_network_is_refused_by_parity(graphs: tuple[Any, Any], evaluation: ImageSet) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parity = parity_against(Tiny().eval(), graphs, evaluation)
    with pytest.raises(
        BadModel, match=r"fp16 graph .*: logit error, prediction agreement, gradient error beyond the limit"
    ):
        refuse_beyond_limits("fp16", parity)


def test_gradient_that_differs_is_refused_though_the_logits_agree(
    network: nn.Module, graphs: tuple[Any, Any], evaluation: ImageSet
) -> None:
    class Detached(nn.Module):
        def forward(self, x: Any) -> Any:
            return network(x).detach() + 0.5 * (network(x) - network(x).detach())

    parity = parity_against(Detached(), graphs, evaluation)
    assert parity.max_logit_error < 1e-5
    with pytest.raises(BadModel, match="network: gradient error beyond"):
        refuse_beyond_limits("fp16", parity)


def test_parity_that_is_not_a_number_is_refused(
    network: nn.Module, graphs: tuple[Any, Any], evaluation: ImageSet
) -> None:
    parity = parity_against(network, graphs, evaluation).model_copy(update={"max_logit_error": float("nan")})
    with pytest.raises(BadModel, match="logit error"):
        refuse_beyond_limits("fp16", parity)


class Waves(nn.Module):
    """The network behind a wave too fine for its slope to say where an attack gets."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Any:
        wave = x
        for _ in range(10):
            wave = (2 * wave - 1).abs()
        return self.network(x + 0.004 * wave)


def test_a_network_whose_gradient_does_not_hold_is_refused(
    network: nn.Module, evaluation: ImageSet, tmp_path: Path
) -> None:
    labels = np.argmax(_answers(Waves(network), evaluation), axis=1)
    right = ImageSet("right", evaluation.images, labels, evaluation.ids)
    with pytest.raises(BadModel, match="the gradient fails to predict the artifact over eps/8"):
        export_network(Waves(network), shape=SHAPE, evaluation=right, claims=CLAIMS, out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def _answers(network: nn.Module, images: ImageSet) -> Any:
    with torch.no_grad():
        return network(torch.from_numpy(images.as_float(slice(None)))).numpy()
