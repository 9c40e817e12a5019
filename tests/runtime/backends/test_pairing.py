"""What judges and what lends the gradient: opened apart, paired, and never one in the other's place."""

from dataclasses import replace

import pytest

from runtime.backends.pairing import DEFAULT_LENDER, Pairing, Runner, read_runner
from runtime.backends.table import BACKENDS
from runtime.bundle.opening import open_bundle
from runtime.errors import MissingEnvironment, UsageFault
from tests.judges import JUDGE, OnlyJudges
from tests.runtime.suite.test_plan import quantised_bundle


@pytest.fixture
def bundle(tmp_path):
    return open_bundle(quantised_bundle(tmp_path / "b"))


@pytest.fixture(autouse=True)
def _backend_that_only_judges(monkeypatch):
    monkeypatch.setitem(BACKENDS, JUDGE.backend, OnlyJudges.backend())


def test_a_judge_that_runs_its_gradient_graph_lends_it_too(bundle):
    session = Pairing(bundle, DEFAULT_LENDER).session("fp32")
    card = session.card()
    assert (card.backend, card.gradient_backend, card.differentiable) == ("ort", None, True)
    assert not card.rounds_apart


def test_a_judge_without_a_gradient_borrows_that_of_the_same_graph_from_onnx_runtime(bundle):
    pairing = Pairing(bundle, JUDGE)
    card = pairing.session("int8").card()
    assert (card.backend, card.provider) == (JUDGE.backend, JUDGE.provider)
    assert (card.gradient_backend, card.gradient_provider, card.gradient_device) == ("ort", "cpu", "cpu")
    graphs, files = bundle.manifest.graphs["int8"], bundle.manifest.files
    assert (card.sha256, card.gradient_sha256) == (files[graphs.forward].sha256, files[graphs.gradient].sha256)
    assert card.rounds_apart, "every point is put to the judge"
    lender = pairing.lending("int8").card()
    assert (lender.sha256, lender.precision, lender.backend) == (card.sha256, "int8", "ort")


def test_the_parents_gradient_comes_from_where_the_artifacts_own_does(bundle):
    pairing = Pairing(bundle, JUDGE)
    pairing.session("int8")
    assert pairing.lender == DEFAULT_LENDER
    assert pairing.lending("fp32").card().backend == "ort"
    assert pairing.session("fp32").card().backend == JUDGE.backend


def test_a_lender_that_is_named_is_never_replaced(bundle):
    with pytest.raises(MissingEnvironment, match="cannot run the gradient graph of int8") as failed:
        Pairing(bundle, DEFAULT_LENDER, lender=JUDGE).session("int8")
    assert "--gradient-backend ort:cpu" in failed.value.hint


def test_without_gradients_nothing_lends_any(bundle):
    pairing = Pairing(bundle, JUDGE, gradient=False)
    card = pairing.session("int8").card()
    assert (card.differentiable, card.gradient_sha256, pairing.lender) == (False, None, None)


def test_every_session_is_opened_once_and_handed_over_to_be_closed(bundle):
    kept = []
    pairing = Pairing(bundle, JUDGE, keep=lambda session: kept.append(session) or session)
    for precision in ("int8", "fp32", "int8"):
        pairing.session(precision)
    ways = [(each.card().precision, each.card().backend) for each in kept]
    assert sorted(ways) == sorted([(p, b) for p in ("int8", "fp32") for b in ("ort", JUDGE.backend)])


@pytest.mark.parametrize(
    ("text", "runner"),
    [("ort", Runner("ort", "cpu")), ("ort:cuda", Runner("ort", "cuda")), (str(JUDGE), JUDGE)],
)
def test_a_runner_is_a_backend_with_or_without_its_provider(text, runner):
    assert read_runner(text) == runner


def test_a_provider_may_hold_a_colon(monkeypatch):
    ort = BACKENDS["ort"]
    monkeypatch.setitem(BACKENDS, "ort", replace(ort, providers=(*ort.providers, "plugin:some")))
    assert read_runner("ort:plugin:some") == Runner("ort", "plugin:some")


@pytest.mark.parametrize("text", ["", "nothing", "nothing:cpu", "ort:nothing"])
def test_what_is_no_runner_is_refused(text):
    with pytest.raises(UsageFault):
        read_runner(text)


@pytest.mark.parametrize("gradient", [True, False])
def test_beside_a_process_a_witness_answers_by_the_bundles_own_graph_with_or_without_gradients(bundle, gradient):
    witness = Pairing(bundle, Runner("command", "process"), gradient=gradient, command="true").witness("int8")
    card = witness.card()
    assert (card.backend, card.provider, card.precision) == ("ort", "cpu", "int8")
    assert card.sha256 == bundle.manifest.files[bundle.manifest.graphs["int8"].forward].sha256
    assert Pairing(bundle, DEFAULT_LENDER).witness("int8") is None
