"""What a bundle says of its model, and what it does not."""

import json

import pytest

from runtime.bundle.described import describe, network_words
from runtime.bundle.manifest import Provenance
from runtime.bundle.opening import open_bundle
from runtime.spec import DataRecord
from tests.paths import ROOT
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import bundle_files, linear_task

DIGEST = "0" * 64


def provenance(teacher_sha256=DIGEST, **fields):
    return Provenance(
        recipe={
            "student": {"arch": "resnet18", "width": 0.25}, "method": {"name": "adaad"},
            "teacher": {"path": "teacher.pt", "arch": "wideresnet", "depth": 34, "width": 10.0},
        },
        recipe_sha256=DIGEST, checkpoint_sha256=DIGEST, teacher_sha256=teacher_sha256,
        training_data=DataRecord(name="tiny/train", n=9, sha256=DIGEST), software={}, **fields,
    )  # fmt: skip


def described(path, **changes):
    weight, bias, images, labels = linear_task()
    write_bundle(path, bundle_files((weight, bias, images, labels)), n=60, **changes)
    return describe(open_bundle(path)), weight.size + bias.size


def test_a_bundle_of_a_trained_network_says_how_it_was_made(tmp_path):
    model, weights = described(tmp_path / "bundle", provenance=provenance())
    assert (model.architecture, model.method) == ("resnet18, width 0.25", "adaad")
    assert (model.teacher, model.teacher_architecture) == ("teacher.pt", "wideresnet, depth 34, width 10")
    assert weights <= model.weights <= weights + 10
    assert model.sizes == {"fp32": (tmp_path / "bundle" / "model.fp32.onnx").stat().st_size}


def test_a_teacher_that_taught_nothing_is_not_said_to_have(tmp_path):
    model, _ = described(tmp_path / "bundle", provenance=provenance(teacher_sha256=None))
    assert (model.teacher, model.teacher_architecture) == (None, None)


def test_what_export_recorded_of_the_teacher_goes_before_the_recipe(tmp_path):
    model, _ = described(tmp_path / "bundle", provenance=provenance(teacher_architecture="resnet18"))
    assert model.teacher_architecture == "resnet18"


def test_of_a_model_that_anyone_made_only_the_graph_is_known(tmp_path):
    model, _ = described(tmp_path / "bundle")
    assert (model.architecture, model.method, model.teacher) == (None, None, None)
    assert model.weights > 0


def test_a_bundle_of_an_earlier_version_is_described_too():
    assert describe(open_bundle(ROOT / "tests/data/stored-0.1/bundle")).ships == "fp32"


def test_a_manifest_without_a_known_teacher_is_written_as_earlier_versions_read_it():
    assert "teacher_architecture" not in json.loads(provenance().model_dump_json())
    assert "teacher_architecture" in json.loads(provenance(teacher_architecture="resnet18").model_dump_json())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, None),
        ({"arch": "resnet18", "width": 1.0, "depth": None}, "resnet18"),
        ({"factory": "my.nets:make"}, "my.nets:make"),
        ({"arch": "resnet18", "width": "wide"}, "resnet18, width wide"),
    ],
)
def test_a_network_is_called_as_its_recipe_calls_it(table, words):
    assert network_words(table) == words
