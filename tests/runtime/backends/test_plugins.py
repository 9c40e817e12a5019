"""ONNX Runtime's plugin execution providers, by the one of OpenVINO on this CPU: the real library, loaded."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from runtime.attacks.losses import cross_entropy, one_hot
from runtime.backends import plugins
from runtime.backends.ort import OrtSession
from runtime.backends.plugins import is_plugin, provider_named
from runtime.backends.table import open_session, provider_of
from runtime.bundle.opening import open_bundle
from runtime.errors import MissingEnvironment, UsageFault
from runtime.files import sha256
from runtime.records.report import load_report
from tests.command_line import edgeproof
from tests.tiny import FORWARD, graph

NAME = "plugin:openvino"


@pytest.fixture(scope="module")
def installed():
    """Return the file of a plugin, whose package is installed."""
    from pathlib import Path

    package = pytest.importorskip("onnxruntime_ep_openvino", reason="no plugin is installed")
    return Path(package.get_library_path()).resolve()


@pytest.fixture
def library(installed):
    """Return the file of a plugin that supports a device of this machine."""
    if not plugins._load(installed).devices:
        pytest.skip("OpenVINO's plugin needs a device by Intel")
    return installed


@pytest.fixture(autouse=True)
def _no_file_is_given(monkeypatch):
    monkeypatch.setattr(plugins, "_given", [])


def device(name, kind):
    return SimpleNamespace(
        ep_name=name, ep_metadata={}, device=SimpleNamespace(type=SimpleNamespace(name=kind), vendor="Acme")
    )


@pytest.fixture
def brought(monkeypatch):
    """Say which devices a library brings, in place of one that is loaded."""

    def bring(*devices):
        monkeypatch.setattr(plugins, "_load", lambda path: plugins.Library("d" * 64, devices))
        monkeypatch.setattr(plugins, "_packaged", lambda wanted: None)

    return bring


def test_a_library_without_a_device_here_says_what_it_may_need(brought):
    brought()
    with pytest.raises(MissingEnvironment, match="supports no device of this machine") as refused:
        provider_named("plugin:acme")
    assert "Intel" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("plugin:qnn", True), ("plugin:qnn:npu", True), ("plugin:", False), ("plugin:qnn:", False), ("cpu", False)],
)
def test_a_plugin_is_called_by_its_name_and_at_most_a_device(text, is_one):
    assert is_plugin(text) is is_one


def test_ort_alone_has_plugins():
    assert provider_of("ort", NAME) == NAME
    for backend in ("tensorrt", "openvino"):
        with pytest.raises(UsageFault, match="has no provider"):
            provider_of(backend, NAME)


def test_a_device_is_chosen_by_its_kind_and_never_guessed_among_several(brought):
    brought(device("AcmeExecutionProvider", "CPU"), device("AcmeExecutionProvider", "NPU"), device("Other", "GPU"))
    assert provider_named("plugin:acme:npu").plugin.called == "Acme NPU by AcmeExecutionProvider"
    assert provider_named("plugin:AcmeExecutionProvider:cpu").plugin.called.startswith("Acme CPU")
    with pytest.raises(UsageFault, match="several devices") as error:
        provider_named("plugin:acme")
    assert "plugin:acme:cpu or --provider plugin:acme:npu" in error.value.hint
    with pytest.raises(MissingEnvironment, match="this machine has no"):
        provider_named("plugin:acme:gpu")
    with pytest.raises(MissingEnvironment, match="has no execution provider qnn") as error:
        provider_named("plugin:qnn")
    assert "AcmeExecutionProvider, Other" in error.value.hint


def test_a_package_that_is_not_installed_and_a_file_that_is_no_plugin_are_told(tmp_path):
    with pytest.raises(MissingEnvironment, match="the plugin nowhere is not installed") as error:
        provider_named("plugin:nowhere")
    assert "onnxruntime-ep-nowhere" in error.value.hint
    (tmp_path / "no.so").write_bytes(b"no library")
    plugins.use_library(tmp_path / "no.so")
    with pytest.raises(MissingEnvironment, match="is not an ONNX Runtime plugin"):
        provider_named(NAME)


def test_an_onnx_runtime_that_loads_no_plugins_is_told(monkeypatch, tmp_path):
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    plugins.use_library(tmp_path / "any.so")
    with pytest.raises(MissingEnvironment, match="cannot load plugins"):
        provider_named(NAME)


def test_the_file_that_is_named_is_used_and_no_installed_package_in_its_place(library, tmp_path):
    plugins.use_library(library)
    with pytest.raises(MissingEnvironment, match="has no execution provider qnn"):
        provider_named("plugin:qnn")
    assert provider_named(NAME).plugin.library_sha256 == sha256(library.read_bytes())


def test_a_plugin_answers_as_the_cpu_does_and_its_library_is_in_the_card(task, files, library):
    forward = files["model.fp32.onnx"]
    ours = OrtSession(forward, None, precision="fp32", provider=NAME)
    theirs = OrtSession(forward, None, precision="fp32")
    np.testing.assert_allclose(ours.logits(task[2]), theirs.logits(task[2]), atol=1e-5)
    whole = ours.logits(task[2])
    for size in (1, 7, 16):
        parts = [ours.logits(task[2][start : start + size]) for start in range(0, 60, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    card = ours.card()
    assert card.library_sha256 == sha256(library.read_bytes())
    assert card.provider == NAME
    assert "OpenVINOExecutionProvider" in card.device
    assert card.rounds_apart


def test_openvino_as_a_plugin_is_asked_for_float32(library):
    """Left alone it computes in bfloat16 on a CPU that has it: a long sum shows it."""
    random = np.random.default_rng(0)
    text = FORWARD.replace("1, 4, 4", "3, 32, 32")
    forward = graph(text, random.normal(size=(3, 3072)).astype(np.float32), np.zeros(3, np.float32))
    images = random.random((20, 3, 32, 32)).astype(np.float32)
    ours, theirs = (OrtSession(forward, None, precision="fp32", provider=name).logits(images) for name in (NAME, "cpu"))
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_no_node_is_left_to_the_cpu(library):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]> '
        "g (float[B, 4] input) => (float[B, B] logits) { r = Relu(input) logits = com.microsoft.CDist(r, input) }"
    )
    graph_of_both = model.SerializeToString()
    OrtSession(graph_of_both, None, precision="fp32").logits(np.zeros((2, 4), np.float32))
    with pytest.raises(MissingEnvironment, match="cannot run the whole forward graph"):
        OrtSession(graph_of_both, None, precision="fp32", provider=NAME)


def test_the_gradient_of_a_plugin_is_held_to_the_cpus(bundle, task, library):
    opened = open_bundle(bundle)
    ours, theirs = (open_session(opened, precision="fp32", backend="ort", provider=name) for name in (NAME, "cpu"))
    assert ours.card().differentiable
    loss = cross_entropy(one_hot(task[3], 3).astype(np.float32))
    np.testing.assert_allclose(ours.loss_gradient(task[2], loss)[2], theirs.loss_gradient(task[2], loss)[2], atol=1e-5)


def test_a_run_by_a_plugin_says_so_in_every_record(bundle, tmp_path, library):
    out = tmp_path / "run"
    options = ("--provider", NAME, "--provider-library", library, "--attacks", "fgsm", "--out", out)
    result = edgeproof("verify", bundle, *options)
    assert result.exit_code == 0, result.stderr
    report, digest = load_report(out), sha256(library.read_bytes())
    for record in (report.artifact, report.request):
        assert (record.provider, record.provider_library_sha256) == (NAME, digest)
    assert digest in (out / "report.html").read_text()
    assert f"--provider-library {library}" in report.request.command
    assert json.loads((out / "run.json").read_text())["request"]["provider_library_sha256"] == digest


def test_a_library_without_a_plugin_is_a_usage_error(bundle, installed):
    for command in (("verify", bundle), ("bench", bundle)):
        result = edgeproof(*command, "--provider-library", installed)
        assert result.exit_code == 2
        assert "--provider plugin:NAME" in result.stderr


def test_targets_lists_the_plugins_that_are_installed(installed):
    assert NAME in plugins.installed()
    assert f"ort:{NAME}" in edgeproof("targets").stdout
