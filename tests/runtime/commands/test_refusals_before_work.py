"""What needs no model to be refused is refused before one is packed, images are read or an engine is opened."""

from pathlib import Path

import numpy as np
import pytest

from runtime.commands import subjects
from runtime.spec import Gate
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import FORWARD, graph

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def model(task, in_an_empty_folder):
    """A model file and images for it."""
    weight, bias, images, labels = task
    Path("model.onnx").write_bytes(graph(FORWARD, weight, bias))
    np.savez("set.npz", x=images, y=labels)
    return ["model.onnx", "--data", "set.npz"]


@pytest.fixture
def work(monkeypatch):
    """What was packed, read or opened, each by its name."""
    done = []

    def note(name):
        def noted(*arguments, **options):
            done.append(name)
            raise AssertionError(f"{name} before the refusal")

        return noted

    monkeypatch.setattr("export.commands.prepare", note("packed"))
    for name in ("find_images", "evaluation_images", "pairing_of"):
        monkeypatch.setattr(subjects, name, note(name))
    return done


@pytest.fixture
def occupied(in_an_empty_folder):
    Path("occupied").mkdir()
    Path("occupied/mine.txt").write_text("keep")


REFUSED = {
    "an --out that holds something": (["--out", "occupied"], 2, "occupied exists and is not empty"),
    "an --out that is no run, to be resumed": (["--out", "occupied", "--resume"], 3, "occupied has no run.json"),
    "nothing to resume": (["--resume"], 2, "--resume needs the directory of the run"),
    "a provider of another backend": (["--backend", "tensorrt", "--provider", "cuda"], 2, "has no provider cuda"),
    "TF32 on a CPU": (["--tf32"], 2, "--tf32 needs a GPU"),
    "TF32 on a CPU after a GPU": (["--on", "ort:cuda,ort:cpu", "--tf32"], 2, "--tf32 needs a GPU"),
    "a gate without an attack": (["--attacks", "clean", "--fail-under", "1%"], 2, "needs an attack within eps"),
    "an attack that needs the gradient": (["--gradient", "none", "--attacks", "pgd"], 2, "pgd needs the gradient"),
    "an early stop without a gate": (["--no-gate", "--until-decided"], 2, "has no gate to decide"),
    "an early stop of a shard": (["--until-decided", "--shard", "1/2"], 2, "cannot judge a shard"),
    "a run to compare with that is none": (["--against", "occupied"], 3, "report.json"),
    "another eps than that run's": (["--against", "run", "--eps", "0.5"], 3, "the threat models are linf, eps"),
    "attacks that run had not": (["--against", "run", "--attacks", "fgsm,pgd,cw,aa"], 3, "only one of the two ran aa"),
    "fewer attacks than that run's": (["--against", "run", "--attacks", "fgsm"], 3, "only one of the two ran pgd, cw"),
}


@pytest.mark.usefixtures("occupied", "finished")
@pytest.mark.parametrize(("options", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_a_model_file_is_not_packed_for_what_is_refused_anyway(model, work, options, code, message):
    result = edgeproof("verify", *model, *options)
    assert (result.exit_code, work) == (code, []), result.stderr
    assert message in result.stderr


def test_without_a_gate_to_decide_a_model_file_is_not_packed(model, work):
    """It brings no gate of its own."""
    result = edgeproof("verify", *model, "--until-decided")
    assert (result.exit_code, work) == (2, [])


@pytest.mark.usefixtures("occupied", "finished")
@pytest.mark.parametrize(("options", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_a_bundle_is_not_opened_for_what_is_refused_anyway(bundle, work, options, code, message):
    result = edgeproof("verify", bundle, *options)
    assert (result.exit_code, work) == (code, []), result.stderr
    assert message in result.stderr


PARTS = {"a shard": ["--shard", "1/2"], "an early stop": ["--until-decided"], "the whole": []}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_drop_that_nothing_can_be_measured_from_is_refused_before_images_are_read(tmp_path, files, work, part):
    bundle = write_bundle(tmp_path / "gated", files, n=60, gate=Gate(fail_under=0.5))
    result = edgeproof("verify", bundle, "--max-drop", "1%", *part)
    assert (result.exit_code, work) == (2, [])
    assert "--against DIR" in result.stderr


def test_a_bundle_without_a_gate_to_decide_is_refused_before_images_are_read(bundle, work):
    result = edgeproof("verify", bundle, "--until-decided")
    assert (result.exit_code, work) == (2, [])
    assert "has no gate to decide" in result.stderr


def test_a_precision_that_the_bundle_does_not_hold_is_refused_before_images_are_read(bundle, work):
    result = edgeproof("verify", bundle, "--precision", "int8")
    assert (result.exit_code, work) == (3, [])
    assert "has no precision 'int8'" in result.stderr


def test_what_was_accepted_goes_on_to_the_work(model, work):
    """The tests above would hold of a command that does nothing."""
    assert (edgeproof("verify", *model).exit_code, work) == (70, ["packed"])


@pytest.mark.parametrize("images", [[], ["--data", "set.npz"]])
def test_a_file_that_nobody_can_pack_is_refused_before_anything_is_said_to_be_packed(work, model, images):
    Path("model.pt").write_bytes(b"PK")
    result = edgeproof("verify", "model.pt", *images)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (3, "error: model.pt is neither a bundle nor a model")
    assert "packing" not in result.stderr
    assert work == []
