"""`edgeproof gpu-check`, over the stand-ins of driver and TensorRT, and without any."""

import contextlib
import json
import shutil
from dataclasses import replace
from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.backends.ort import OrtSession
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import open_bundle
from runtime.errors import BadBundle, BadModel, EngineFault, MissingEnvironment, NonFinite, OutOfMemory
from runtime.gpu_check.checks import (
    CHECKS_GROUP,
    LIMITS,
    LOOSE,
    STRICT,
    CheckContext,
    beyond,
    compare_precisions,
    compare_sessions,
    main,
)
from runtime.records.gpu_check import GpuCheck
from runtime.session import Session
from tests.runtime.tensorrt.test_missing import BUNDLE, RUN, needs_no_driver, python


def gpu_check(tmp_path, *options, **environment):
    where = ("--out", tmp_path / "out", "--state", tmp_path / "state")
    only = ("--only", "tensorrt", "--only", "ort-cuda")
    return python("-c", RUN, "gpu-check", BUNDLE, "--n", "12", *only, *where, *options, **environment)


def report(tmp_path):
    found = GpuCheck.model_validate_json((tmp_path / "out/gpu-check.json").read_bytes())
    return found, {result.name: result for result in found.results}


@needs_no_driver
def test_without_a_gpu_it_says_what_is_missing_and_that_nothing_was_checked(tmp_path):
    result = gpu_check(tmp_path)
    assert result.returncode == 4
    assert "error: nothing here could be checked on a GPU" in result.stderr
    _, results = report(tmp_path)
    assert results.keys() == {"tensorrt", "ort-cuda"}
    assert {each.state for each in results.values()} == {"not there"}
    assert "no CUDA driver" in results["tensorrt"].message
    for each in results.values():
        assert each.message in result.stdout
    assert (tmp_path / "out/gpu-check.md").read_text() in result.stdout


def test_an_engine_that_agrees_is_reported_image_by_image(tmp_path, driver, libraries):
    result = gpu_check(tmp_path, "-q", LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(libraries))
    assert (result.returncode, result.stderr) == (0, "")
    found, results = report(tmp_path)
    assert (found.n, results["tensorrt"].state, results["ort-cuda"].state) == (12, "agrees", "not there")
    (compared,) = results["tensorrt"].comparisons
    assert (compared.device, compared.same_prediction, compared.same_verdict) == ("Fake Orin", 12, 12)
    assert compared.robust == compared.robust_reference
    assert compared.gradient_cosine > 0.999
    assert "the same class for 12 of 12 images" in result.stdout
    with np.load(tmp_path / "out/tensorrt-fp32.npz") as arrays:
        assert arrays["logits"].shape == arrays["logits_reference"].shape == (12, 10)
        np.testing.assert_array_equal(arrays["broken_by"], arrays["broken_by_reference"])
    assert "building it" in (tmp_path / "out/tensorrt.log").read_text()


CRASH = "import os, sys; print('about to fail', file=sys.stderr, flush=True); os.abort()"


def test_a_check_refuses_a_bundle_that_is_no_longer_the_one_that_was_opened(tmp_path):
    with pytest.raises(BadBundle, match="changed after it was opened"):
        main(["tensorrt", str(BUNDLE), str(tmp_path), "12", "0" * 64])
    assert not list(tmp_path.iterdir())


def test_a_library_that_crashes_takes_nothing_else_with_it(tmp_path, driver):
    (tmp_path / "modules/tensorrt").mkdir(parents=True)
    (tmp_path / "modules/tensorrt/__init__.py").write_text(CRASH)
    result = gpu_check(tmp_path, LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(tmp_path / "modules"))
    assert result.returncode == 1
    _, results = report(tmp_path)
    assert results["tensorrt"].state == "failed"
    assert "crashed with SIGABRT: about to fail" in results["tensorrt"].message
    assert results["ort-cuda"].state == "not there"


def test_a_crash_when_all_is_let_go_is_a_failure_and_the_answers_stay(tmp_path, driver, libraries):
    place = tmp_path / "libraries"
    shutil.copytree(libraries, place)
    init = place / "tensorrt/__init__.py"
    init.write_text("import atexit, os\natexit.register(os.abort)\n" + init.read_text())
    result = gpu_check(tmp_path, LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(place))
    assert result.returncode == 1
    _, results = report(tmp_path)
    assert (results["tensorrt"].state, len(results["tensorrt"].comparisons)) == ("failed", 1)
    assert "crashed with SIGABRT" in results["tensorrt"].message
    assert "fp32 on Fake Orin" in results["tensorrt"].message


@pytest.mark.parametrize("error", [EngineFault("no kernel"), OutOfMemory("the GPU is full"), NonFinite("NaN")])
def test_a_precision_that_fails_is_named_and_the_others_are_compared(given, session, error, monkeypatch):
    graph = given.bundle.manifest.graphs["fp32"]
    manifest = given.bundle.manifest.model_copy(update={"graphs": {"int8": graph, "fp32": graph}})
    both = replace(given, bundle=SimpleNamespace(manifest=manifest))

    def open_session(bundle, *, precision, backend, **rest):
        if (precision, backend) == ("int8", "tensorrt"):
            raise error
        return contextlib.nullcontext(session)  # one for both precisions: nobody may close it

    monkeypatch.setattr("runtime.gpu_check.checks.open_session", open_session)
    result = compare_precisions("tensorrt", both, "tensorrt", "tensorrt")
    assert (result.state, result.message) == ("failed", f"int8: {error.message}")
    assert [each.precision for each in result.comparisons] == ["fp32"]


def test_a_backend_that_is_not_there_is_no_failure_of_a_precision(given, monkeypatch):
    def open_session(bundle, **how):
        raise MissingEnvironment("there is no CUDA driver here")

    monkeypatch.setattr("runtime.gpu_check.checks.open_session", open_session)
    with pytest.raises(MissingEnvironment):
        compare_precisions("tensorrt", given, "tensorrt", "tensorrt")


def test_an_engine_that_is_not_built_is_a_failure_in_tensorrts_words(tmp_path, driver, libraries):
    place = tmp_path / "libraries"
    shutil.copytree(libraries, place)
    init = place / "tensorrt/__init__.py"
    init.write_text(init.read_text() + "\nfake_tensorrt.world.broken['build'] = 'Error Code 10: no kernel'")
    result = gpu_check(tmp_path, LD_LIBRARY_PATH=str(driver), PYTHONPATH=str(place))
    assert result.returncode == 1
    _, results = report(tmp_path)
    assert (results["tensorrt"].state, "Error Code 10" in results["tensorrt"].message) == ("failed", True)


def test_every_check_is_found_and_another_name_is_a_usage_error(tmp_path):
    names = {entry.name for entry in entry_points(group=CHECKS_GROUP)}
    assert names == {"tensorrt", "ort-cuda", "ort-tensorrt", "training"}
    result = gpu_check(tmp_path, "--only", "magic")
    assert result.returncode == 2
    assert "there are: ort-cuda, ort-tensorrt, tensorrt, training" in result.stderr


def test_an_out_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_text("")
    result = gpu_check(tmp_path)
    assert result.returncode == 2
    assert "name another" in result.stderr
    assert "--resume" not in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


class Altered(Session):
    """A session whose answers are changed."""

    def __init__(self, session, logits=lambda z: z, gradient=lambda g: g):
        self.session, self.change, self.bend = session, logits, gradient

    def logits(self, x):
        return self.change(self.session.logits(x))

    def loss_gradient(self, x, loss):
        z, value, gradient = self.session.loss_gradient(x, loss)
        return self.change(z), value, self.bend(gradient)

    def card(self):
        return self.session.card()


class Doubtful(Altered):
    """A session that does not stand by what it answered since `good` times before."""

    def __init__(self, session, good):
        super().__init__(session)
        self.good = iter(range(good))

    def confirm(self):
        if next(self.good, None) is None:
            raise BadModel("a CUDA graph answers otherwise", hint="report it")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    opened = open_bundle(BUNDLE)
    return CheckContext(opened, evaluation_images(opened).first(20), tmp_path_factory.mktemp("out"), None)


@pytest.fixture
def session(given):
    read = given.bundle.read
    return OrtSession(read("model.fp32.onnx"), read("model.fp32.grad.onnx"), precision="fp32", threads=1)


def test_the_same_engine_agrees_with_itself(session, given):
    found = compare_sessions(session, session, given, "same")
    assert found.beyond == ()
    assert (found.same_prediction, found.same_verdict, found.logit_error.largest) == (20, 20, 0)


def test_classes_that_differ_are_beyond_the_limits(session, given):
    found = compare_sessions(Altered(session, logits=lambda z: np.roll(z, 1, axis=1)), session, given, "rolled")
    assert found.same_prediction == 0
    assert any("same_prediction of 0 of 20 images, 99.8 % are needed" in said for said in found.beyond)


def test_gradients_that_differ_are_beyond_the_limits(session, given):
    found = compare_sessions(Altered(session, gradient=lambda g: -g), session, given, "turned")
    assert found.gradient_cosine == pytest.approx(-1)
    assert any("gradient_error of 2.0e+00, at most 1e-03 is allowed" in said for said in found.beyond)
    assert any("gradient_cosine of -1.0000, at least 0.999 is needed" in said for said in found.beyond)
    assert any("same_verdict" in said for said in found.beyond)


def test_a_gradient_that_turns_on_one_image_alone_is_beyond_the_limits(session, given):
    def turned(g):
        return np.concatenate([-g[:1], g[1:]])

    found = compare_sessions(Altered(session, gradient=turned), session, given, "one")
    assert found.gradient_error.median == 0
    assert any("gradient_cosine" in said for said in found.beyond)


def test_gradients_that_are_zero_on_both_agree(session, given):
    dead = Altered(session, gradient=lambda g: 0 * g)
    found = compare_sessions(dead, dead, given, "dead")
    assert (found.gradient_error.largest, found.gradient_cosine, found.beyond) == (0, 1, ())


SEEN = {"fp32": (7.7e-7, 1.0), "fp16": (1.3e-2, 0.99)}
"""Median distance and least cosine of gradients on an H200, from 128 images."""


@pytest.mark.parametrize("precision", SEEN)
def test_what_was_seen_on_a_gpu_keeps_to_the_limits_and_what_lies_beyond_does_not(session, given, precision):
    error, cosine = SEEN[precision]
    limits = LIMITS.get(precision, LOOSE)
    same = compare_sessions(session, session, given, "same")

    def apart(error, cosine):
        seen = {"gradient_error": same.gradient_error.model_copy(update={"median": error}), "gradient_cosine": cosine}
        return beyond(same.model_copy(update=seen), limits)

    assert apart(error, cosine) == ()
    assert len(apart(3 * limits.gradient_error, cosine - 0.01)) == 2


@pytest.mark.parametrize("what", ["logits", "gradient"])
def test_what_is_no_number_is_refused(session, given, what):
    with pytest.raises(NonFinite, match=what):
        compare_sessions(Altered(session, **{what: lambda array: array * np.nan}), session, given, "nan")


@pytest.mark.parametrize("good", range(4))
def test_what_a_session_does_not_stand_by_gives_no_comparison(session, given, good):
    """Logits, gradients, the clean pass and the attack are each confirmed."""
    with pytest.raises(BadModel, match="a CUDA graph answers otherwise"):
        compare_sessions(Doubtful(session, good), session, given, "doubtful")


def test_one_image_may_always_differ(session, given):
    same = compare_sessions(session, session, given, "same")
    assert beyond(same.model_copy(update={"same_prediction": 19, "same_verdict": 19}), STRICT) == ()
    assert len(beyond(same.model_copy(update={"same_prediction": 18, "same_verdict": 18}), STRICT)) == 2


def test_without_a_gradient_graph_logits_are_compared_alone(given):
    session = OrtSession(given.bundle.read("model.fp32.onnx"), None, precision="fp32", threads=1)
    found = compare_sessions(session, session, given, "blind")
    assert (found.same_prediction, found.same_verdict, found.gradient_error) == (20, None, None)
    assert json.loads(found.model_dump_json())["attack"] is None
