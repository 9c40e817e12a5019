"""A network in memory becomes a bundle that commands judge."""

import numpy as np
import pytest
import torch
from torch import nn

import edgeproof as ep
from edgeproof import exporting
from runtime.errors import BadData, BadModel, UsageFault


def network(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )


def evaluation(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 3, 8, 8), np.float32), rng.integers(0, 4, n)


def test_a_network_becomes_a_bundle_of_three_precisions(tmp_path):
    bundle = ep.export(
        network(),
        evaluation=evaluation(),
        out=tmp_path / "bundle",
        precisions=("fp32", "fp16", "int8"),
        calibration=evaluation(64, 1),
        keep_fp16=(),
        eps=4 / 255,
        fail_under=0.4,
        classes=("ant", "bee", "cat", "dog"),
    )
    manifest = bundle.manifest
    assert set(manifest.graphs) == {"fp32", "fp16", "int8"}
    assert (manifest.name, manifest.classes) == ("Sequential", ("ant", "bee", "cat", "dog"))
    assert (manifest.threat_model.eps, manifest.gate.fail_under) == (4 / 255, 0.4)
    assert bundle.path == tmp_path / "bundle"
    assert repr(bundle) == f"<Bundle Sequential: fp16, fp32, int8, at {tmp_path / 'bundle'}>"


def test_tensors_channels_last_and_bytes_are_the_same_images(tmp_path):
    x, y = evaluation()
    bytes_ = np.round(255 * x).astype(np.uint8)
    forms = {
        "bytes": (bytes_, y),
        "tensors": (torch.from_numpy(bytes_), torch.from_numpy(y)),
        "last": (bytes_.transpose(0, 2, 3, 1), y[:, None]),
    }
    made = {name: ep.export(network(), evaluation=form, out=tmp_path / name) for name, form in forms.items()}
    assert len({bundle.manifest.evaluation.sha256 for bundle in made.values()}) == 1
    assert made["bytes"].manifest.classes == ("0", "1", "2", "3")


def test_the_network_stays_as_it_was(tmp_path):
    net = network().train()
    ep.export(net, evaluation=evaluation(), out=tmp_path / "bundle")
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_label_beyond_the_logits_is_refused(tmp_path):
    x, y = evaluation()
    with pytest.raises(BadData):
        ep.export(network(classes=3), evaluation=(x, np.full_like(y, 3)), out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_images_that_the_network_does_not_take_are_refused(tmp_path):
    with pytest.raises(BadModel, match="does not take images"):
        ep.export(network(), evaluation=(np.zeros((2, 1, 8, 8), np.uint8), [0, 1]), out=tmp_path / "bundle")


def test_int8_asks_for_calibration_images(tmp_path):
    with pytest.raises(UsageFault, match="calibration images") as caught:
        ep.export(network(), evaluation=evaluation(), out=tmp_path / "bundle", precisions=("int8",))
    assert caught.value.hint == "calibration=x_train"


def test_what_int8_costs_is_measured_by_the_labels_of_its_images(tmp_path, capsys):
    x, _ = evaluation(64, 1)
    own = network()(torch.from_numpy(x)).argmax(1)
    ep.export(
        network(), evaluation=evaluation(), out=tmp_path / "bundle", precisions=("int8",), calibration=(x, own), eps=0.0
    )
    assert "(fp32: clean 100.0 %" in capsys.readouterr().err


def test_calibration_images_without_labels_are_judged_by_what_the_network_answers(tmp_path, capsys):
    x, _ = evaluation(300, 1)
    ep.export(network(), evaluation=evaluation(), out=tmp_path / "b", precisions=("int8",), calibration=x, eps=0.0)
    assert "(fp32: clean 100.0 %" in capsys.readouterr().err


def test_of_calibration_images_without_labels_the_network_answers_only_those_that_are_used(
    tmp_path, monkeypatch, capsys
):
    answer, asked = exporting.reference_logits, []

    def counted(net, images):
        asked.append(len(images))
        return answer(net, images)

    monkeypatch.setattr(exporting, "IMAGES", 8)
    monkeypatch.setattr(exporting, "reference_logits", counted)
    x, _ = evaluation(300, 1)
    ep.export(network(), evaluation=evaluation(), out=tmp_path / "b", precisions=("int8",), calibration=x, eps=0.0)
    assert asked == [8, 8]
    assert "on 8 images of calibration, labelled by the network: " in capsys.readouterr().err


def test_calibration_images_without_labels_must_fit_the_network(tmp_path):
    with pytest.raises(BadData, match="calibration"):
        ep.export(
            network(),
            evaluation=evaluation(),
            out=tmp_path / "b",
            precisions=("int8",),
            calibration=evaluation(8, 1)[0][:, :1],
        )
