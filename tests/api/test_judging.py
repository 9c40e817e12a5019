"""A verdict from Python: the same as the command line's, of files, bytes, bundles and networks."""

import gc
import json

import numpy as np
import pytest
import torch
from torch import nn

import edgeproof as ep
from runtime.errors import BadData, UsageFault
from tests.command_line import edgeproof
from tests.tiny import FORWARD, graph, linear_task

EPS = 0.03


@pytest.fixture
def task():
    return linear_task()


@pytest.fixture
def model(task, tmp_path):
    weight, bias, _, _ = task
    path = tmp_path / "model.onnx"
    path.write_bytes(graph(FORWARD, weight, bias))
    return path


@pytest.fixture
def images(task):
    return task[2:]


@pytest.fixture
def network(task):
    weight, bias, images, _ = task
    net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].size, len(bias)))
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(np.asarray(weight)).reshape(net[1].weight.shape))
        net[1].bias.copy_(torch.from_numpy(np.asarray(bias)))
    return net


def test_the_verdict_is_the_command_lines_image_by_image(model, images, tmp_path):
    x, y = images
    np.savez(tmp_path / "set.npz", x=x, y=y)
    asked = ("--data", tmp_path / "set.npz", "--eps", EPS, "--attacks", "fgsm,pgd", "--fail-under", "20%")
    by_command = edgeproof("verify", model, *asked, "--out", tmp_path / "run")
    verdict = ep.verify(model, x, y, eps=EPS, attacks="fgsm,pgd", fail_under=0.2)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert verdict.outcome == report["verdict"]
    assert verdict.passed == (by_command.exit_code == 0)
    assert verdict.robust_accuracy == report["robust_accuracy"]["value"]
    assert verdict.clean_accuracy == report["clean"]["accuracy"]
    with np.load(tmp_path / "run" / "evidence.npz") as arrays:
        for name in arrays:
            np.testing.assert_array_equal(verdict.evidence[name], arrays[name])


def test_a_path_bytes_tensors_and_a_network_are_judged_alike(model, images, network):
    x, y = images
    asked = {"eps": EPS, "attacks": ["pgd"], "no_gate": True}
    verdicts = [
        ep.verify(str(model), x, y, **asked),
        ep.verify(model.read_bytes(), torch.from_numpy(x), torch.from_numpy(y), **asked),
        ep.verify(network, x, y, **asked),
    ]
    assert {verdict.outcome for verdict in verdicts} == {"measured"}
    for verdict in verdicts[1:]:
        np.testing.assert_array_equal(verdict.evidence["broken_by"], verdicts[0].evidence["broken_by"])


def test_a_network_claims_as_little_as_a_file_does(model, images, network):
    verdicts = [ep.verify(each, *images, eps=EPS, attacks="pgd", fail_under=0.01) for each in (model, network)]
    states = [{each.check: each.state for each in verdict.report.checks} for verdict in verdicts]
    assert states[0] == states[1]
    assert states[1]["claimed-threat"] == "quiet"


def test_a_number_normalises_as_a_list_of_one_does(model, images):
    asked = {"eps": EPS, "attacks": "pgd", "no_gate": True}
    one, each = (ep.verify(model, *images, mean=mean, std=std, **asked) for mean, std in ((0.1, 0.5), ([0.1], [0.5])))
    assert one.report.clean == each.report.clean
    assert one.robust_accuracy == each.robust_accuracy


def test_a_bundle_brings_its_images_and_its_gate(network, images, tmp_path):
    bundle = ep.export(network, evaluation=images, out=tmp_path / "bundle", eps=EPS, fail_under=0.99)
    verdict = ep.verify(bundle.path, attacks="pgd", out=tmp_path / "run")
    assert not verdict.passed
    assert verdict.directory == tmp_path / "run"
    assert verdict.report.gate.fail_under == 0.99


def test_a_verdict_is_neither_true_nor_false(model, images):
    verdict = ep.verify(model, *images, eps=EPS, attacks="fgsm")
    assert verdict.outcome == "measured"
    assert not verdict.passed
    with pytest.raises(TypeError, match=r"verdict\.passed"):
        bool(verdict)
    assert str(verdict).startswith("measured: clean ")
    assert repr(verdict) == f"<Verdict {verdict}, {len(images[1])} images, eps 0.03>"
    assert "Measured: model" in verdict._repr_markdown_()


def test_the_page_and_the_record_are_written_where_they_are_asked_for(model, images, tmp_path):
    verdict = ep.verify(model, *images, eps=EPS, attacks="fgsm")
    assert "<html" in verdict.to_html(tmp_path / "page.html").read_text()
    assert json.loads(verdict.to_json(tmp_path / "r.json").read_text())["verdict"] == "measured"


def test_what_was_temporary_goes_with_the_verdict(model, images):
    verdict = ep.verify(model, *images, eps=EPS, attacks="fgsm")
    place = verdict.directory
    assert place.is_dir()
    del verdict
    gc.collect()
    assert not place.exists()
    assert not place.parent.exists()


def test_nothing_temporary_stays_of_a_call_that_fails(model, images, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    x, y = images
    with pytest.raises(BadData):
        ep.verify(model, x, y + 1000, attacks="fgsm")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_an_attacks_points_lie_in_the_ball_and_break_what_the_verdict_says(model, images, network):
    x, y = images
    points = ep.attack(model, x, y, attack="pgd", eps=EPS)
    assert points.shape == x.shape
    assert points.dtype == np.float32
    clean = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    assert np.abs(points - clean).max() <= EPS + 1e-6
    assert 0 <= points.min() <= points.max() <= 1
    with torch.no_grad():
        stands = network(torch.from_numpy(points)).argmax(1).numpy() == y
    verdict = ep.verify(model, x, y, eps=EPS, attacks="pgd")
    assert stands.mean() == verdict.robust_accuracy


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"eps": 3.0}, "eps"),
        ({"attacks": "pdg"}, "not an attack"),
        ({"fail_under": 45}, "fail_under"),
        ({"backend": "nowhere"}, "nowhere"),
        ({"fail_under": 0.4, "no_gate": True}, "contradicts"),
    ],
)
def test_what_the_command_line_refuses_is_refused(model, images, asked, said):
    with pytest.raises(UsageFault, match=said):
        ep.verify(model, *images, **asked)


def test_images_without_labels_and_a_model_without_images_are_refused(model, images, network):
    with pytest.raises(UsageFault, match="labels come together"):
        ep.verify(model, images[0])
    with pytest.raises(UsageFault, match="brings no images"):
        ep.verify(model)
    with pytest.raises(UsageFault, match="brings no images"):
        ep.verify(network)
    with pytest.raises(UsageFault, match="no bundle and no model"):
        ep.verify("nowhere.onnx", *images)


def test_what_knows_no_eps_is_no_attack_within_it(model, images):
    with pytest.raises(UsageFault, match="no attack within eps"):
        ep.attack(model, *images, attack="cw-l2")


def test_a_verdict_is_of_one_precision(model, images):
    with pytest.raises(UsageFault, match="several are named"):
        ep.verify(model, *images, precision="fp32,int8")
