"""What is not fp32 is attacked by its own gradient, its parent's, and Square; the artifact judges."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.attacks import ATTACKS
from runtime.attacks.oracle import Oracle
from runtime.backends.ort import OrtSession
from runtime.bundle.manifest import Graph
from runtime.images.image_set import ImageSet
from runtime.records.report import load_report
from runtime.session import BorrowedGradient, GraphFacts, SessionCard
from runtime.suite.campaign import Campaign
from runtime.suite.journal import NoJournal
from runtime.suite.plan import plan_suite
from runtime.suite.run import clean_pass, run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.command_line import edgeproof
from tests.fakes import DIGEST, LinearSession, planned
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import EPS, GRADIENT, HALVED, IN_BYTES, ROUNDED, bundle_files, graph, linear_task

FLOAT, HALF, INT8 = GraphFacts(), GraphFacts(computes_in="float16"), GraphFacts(quantised=True)
STAIRS = GraphFacts(staircases=("Round",))
PATHS = {name: (f"model.{name}.onnx", f"model.{name}.grad.onnx") for name in ("fp32", "fp16", "int8")}
SUITE = ["--attacks", "fgsm,pgd", "--save-adversarial"]


@pytest.fixture(autouse=True)
def _short_square(monkeypatch):
    monkeypatch.setitem(ATTACKS, "square", replace(ATTACKS["square"], defaults={"queries": 40, "p": 0.8}))


class Precise(LinearSession):
    """A linear classifier that says what its graph is; its gradient may be another's."""

    def __init__(self, weight, bias, facts, slope=None):
        super().__init__(weight, bias)
        self.facts, self.slope = facts, LinearSession(weight if slope is None else slope, bias)

    def loss_gradient(self, x, loss):
        return self.slope.loss_gradient(x, loss)

    def card(self):
        return replace(super().card(), facts=self.facts)


def misleading(weight, bias):
    """Return a gradient graph whose classes are right and whose slopes are noise."""
    model = onnx.load_from_string(graph(GRADIENT, weight, bias))
    noise = np.random.default_rng(3).normal(size=weight.T.shape).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(noise, "noise"))
    next(node for node in model.graph.node if node.output[0] == "flat_gradient").input[1] = "noise"
    return model.SerializeToString()


def quantised_bundle(path, *, own=None, names=("fp32", "int8"), without=(), seed=0, **changes):
    """Write a bundle of the linear task in some precisions; `without` lists those that have no gradient graph."""
    weight, bias, images, labels = linear_task(seed=seed)
    files = bundle_files((weight, bias, images, labels))
    derived = own or graph(GRADIENT, weight, bias)
    contents = {
        "fp32": (files["model.fp32.onnx"], files["model.fp32.grad.onnx"]),
        "fp16": (graph(HALVED, weight, bias), derived),
        "int8": (graph(IN_BYTES, weight, bias), derived),
    }
    listed = {"evaluation.npz": files["evaluation.npz"]}
    graphs = {}
    for name in names:
        forward, gradient = PATHS[name]
        listed[forward] = contents[name][0]
        if name not in without:
            listed[gradient] = contents[name][1]
        graphs[name] = Graph(forward=forward, gradient=None if name in without else gradient, opset=18)
    return write_bundle(path, listed, n=60, graphs=graphs, ships=names[-1], **changes)


def judged(bundle, out, *options, code=0):
    result = edgeproof("verify", bundle, *SUITE, *options, "--out", out)
    assert result.exit_code == code, result.stderr + result.stdout
    return load_report(out)


def who(report):
    return [(row.name, row.gradient) for row in report.attacks]


BOTH = [("fgsm", "own"), ("pgd", "own"), ("fgsm", "parent"), ("pgd", "parent")]
SQUARE = ("square", "none")
STAGES = ("apgd-ce", "apgd-dlr", "fab-t")


def card_of(facts, *, differentiable=True):
    return SessionCard(DIGEST, facts.precision, "fake", "fake", "fake", differentiable=differentiable, facts=facts)


@pytest.mark.parametrize(
    ("names", "facts", "gradient_from", "rows"),
    [
        (("pgd",), FLOAT, ("own",), [("pgd", "own")]),
        (("fgsm", "pgd"), HALF, ("own", "parent"), BOTH),
        (("fgsm", "pgd"), INT8, ("own", "parent"), [*BOTH, SQUARE]),
        (("pgd",), INT8, ("own",), [("pgd", "own"), SQUARE]),
        (("pgd",), INT8, ("parent",), [("pgd", "parent"), SQUARE]),
        (("fgsm", "pgd"), STAIRS, ("own", "parent"), [*BOTH, SQUARE]),
        (("pgd",), STAIRS, ("own",), [("pgd", "own"), SQUARE]),
        (("square",), INT8, (), [SQUARE]),
        (("square", "pgd"), INT8, ("own", "parent"), [("square", "own"), ("pgd", "own"), ("pgd", "parent")]),
        (("cw-l2",), INT8, ("own",), [("cw-l2", "own")]),
        ((), INT8, ("own", "parent"), []),
    ],
)
def test_the_suite_runs_by_every_gradient_and_square_once(names, facts, gradient_from, rows):
    card = card_of(facts, differentiable="own" in gradient_from)
    plan = plan_suite(names, 3, card, lends="parent" in gradient_from)
    assert [(each.name, each.gradient_from) for each in plan.attacks] == rows


def test_a_cascade_by_the_parents_gradient_leaves_out_what_needs_none():
    first, second = plan_suite(("aa",), 3, card_of(INT8), lends=True).attacks
    assert tuple(stage.name for stage in first.stages) == (*STAGES, "square")
    assert (second.gradient_from, tuple(stage.name for stage in second.stages)) == ("parent", STAGES)


def task_of(seed):
    weight, bias, images, labels = linear_task(n=24, seed=seed)
    other = np.random.default_rng(seed + 1).normal(size=weight.shape).astype(np.float32)
    return (
        Precise(weight, bias, INT8, slope=other),
        LinearSession(weight, bias),
        ImageSet("linear", images, labels, np.arange(24)),
    )


def suite(session, images, lender=None, attacks=("fgsm", "pgd")):
    target = Target(session, images, 3, 8, lender=lender)
    return run_suite(target, planned(target, attacks), eps=EPS, seed=0, keep_all=True, progress=Silent())


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_an_image_is_robust_exactly_where_it_stands_each_part_of_the_union(seed):
    artifact, parent, images = task_of(seed)
    union = suite(artifact, images, parent).evidence
    alone = [
        suite(Precise(artifact.weight, artifact.bias, HALF, artifact.slope.weight), images),
        suite(BorrowedGradient(Precise(artifact.weight, artifact.bias, HALF), parent), images),
        suite(Precise(artifact.weight, artifact.bias, HALF), images, attacks=("square",)),
    ]
    np.testing.assert_array_equal(union.robust, np.all([each.evidence.robust for each in alone], axis=0))
    np.testing.assert_array_equal(union.robust, union.correct & ~np.any(list(union.fell.values()), axis=0))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(5)))
def test_which_images_stand_does_not_depend_on_the_order_of_the_attacks(seed, order):
    artifact, parent, images = task_of(seed)
    chosen = plan_suite(("fgsm", "pgd"), 3, card_of(INT8), lends=True).attacks
    stand = []
    for turn in (range(5), order):
        target = Target(artifact, images, 3, 8, lender=parent)
        evidence = clean_pass(target, len(images), Silent())
        rows = Campaign(target, evidence, EPS, 0, Silent(), NoJournal()).run([chosen[i] for i in turn], None)
        stand.append((evidence.robust, sorted((row.label, row.broken) for row in rows)))
        assert all(
            evidence.fell[rows[row].label][image] for image, row in enumerate(evidence.broken_by.tolist()) if row >= 0
        )
    np.testing.assert_array_equal(stand[0][0], stand[1][0])
    assert stand[0][1] == stand[1][1]


def test_a_useless_gradient_of_its_own_is_made_up_for_by_the_parents(tmp_path):
    weight, bias, _, _ = linear_task()
    bundle = quantised_bundle(tmp_path / "b", own=misleading(weight, bias))
    report = judged(bundle, tmp_path / "run", "--eps", "0.03")
    assert who(report) == [*BOTH, SQUARE]
    own, parent = report.attacks[1], report.attacks[3]
    assert own.accuracy - parent.accuracy > 0.25
    assert report.robust_accuracy.value <= parent.accuracy


def test_every_broken_image_is_broken_by_its_row_and_proven_by_the_quantised_graph(tmp_path):
    bundle = quantised_bundle(tmp_path / "b")
    report = judged(bundle, tmp_path / "run")
    session = OrtSession((bundle / "model.int8.onnx").read_bytes(), None, precision="int8")
    with np.load(tmp_path / "run" / "evidence.npz") as evidence:
        broken_by, label, points = evidence["broken_by"], evidence["label"], evidence["adversarial"]
        prediction = evidence["adversarial_prediction"]
    broken = broken_by >= 0
    answers = session.logits(points).argmax(axis=1)
    assert broken.any()
    assert (answers[broken] != label[broken]).all()
    np.testing.assert_array_equal(answers, prediction)
    assert set(broken_by[broken].tolist()) <= set(range(len(report.attacks)))
    assert report.robust_accuracy.value == np.mean(broken_by == -1)


def test_the_request_says_what_led_and_what_was_added(tmp_path):
    report = judged(quantised_bundle(tmp_path / "b"), tmp_path / "run")
    request = report.request
    assert [attack.name for attack in request.attacks] == ["fgsm", "pgd"]
    assert request.gradients == ("own", "parent")
    assert [(attack.name, attack.settings) for attack in request.added] == [("square", {"queries": 40, "p": 0.8})]
    assert None not in (request.gradient_sha256, request.parent_gradient_sha256)


def test_fp16_follows_both_gradients_and_needs_no_square(tmp_path):
    report = judged(quantised_bundle(tmp_path / "b", names=("fp32", "fp16")), tmp_path / "run")
    assert (who(report), report.request.added) == (BOTH, ())


def test_without_a_parent_the_report_says_so(tmp_path):
    report = judged(quantised_bundle(tmp_path / "b", names=("int8",)), tmp_path / "run")
    assert who(report) == [("fgsm", "own"), ("pgd", "own"), SQUARE]
    (finding,) = (each for each in report.warnings if each.check == "no-parent")
    assert not finding.blocking
    assert "only its own straight-through gradient and Square attacked int8" in finding.message
    assert report.parent_agreement is None


def test_a_staircase_is_attacked_by_the_union_though_the_bundle_calls_it_fp32(tmp_path):
    weight, bias, images, labels = linear_task()
    files = bundle_files((weight, bias, images, labels)) | {"model.fp32.onnx": graph(ROUNDED, weight, bias)}
    report = judged(write_bundle(tmp_path / "b", files, n=60), tmp_path / "run")
    assert (report.artifact.precision, report.artifact.facts.staircases) == ("fp32", ("Round",))
    assert who(report) == [("fgsm", "own"), ("pgd", "own"), SQUARE]
    (finding,) = (each for each in report.warnings if each.check == "no-parent")
    assert "only its own straight-through gradient and Square attacked fp32 with staircases (Round)" in finding.message
    assert (
        "the gradient is a surrogate: it passes straight through Round" in (tmp_path / "run" / "summary.md").read_text()
    )


def test_points_of_a_borrowed_gradient_are_all_put_to_the_artifact():
    weight, bias, _, _ = linear_task()
    artifact = LinearSession(weight, bias)
    assert Oracle(artifact, 8).hints_hold
    assert not Oracle(BorrowedGradient(artifact, artifact), 8).hints_hold
    assert not any(Oracle(Precise(weight, bias, facts), 8).hints_hold for facts in (HALF, INT8, STAIRS))


def test_without_a_gradient_of_its_own_the_parents_leads(tmp_path):
    report = judged(quantised_bundle(tmp_path / "b", without=("int8",)), tmp_path / "run")
    assert who(report) == [("fgsm", "parent"), ("pgd", "parent"), SQUARE]
    assert report.agreement is None
    assert report.parent_agreement.n > 60
    assert report.eps_curve[-1].accuracy < report.eps_curve[0].accuracy


def test_without_gradients_square_alone_runs(tmp_path):
    result = edgeproof("verify", quantised_bundle(tmp_path / "b"), "--gradient", "none", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    report = load_report(tmp_path / "run")
    assert (who(report), report.request.gradients) == ([SQUARE], ())


def test_shards_and_a_resumed_run_of_other_batches_leave_the_same_evidence(tmp_path, monkeypatch):
    bundle, lattice = quantised_bundle(tmp_path / "b"), ("--lattice", "uint8")
    whole = judged(bundle, tmp_path / "whole", *lattice)
    for shard in ("1/2", "2/2"):
        options = [*SUITE, *lattice, "--shard", shard, "--batch", shard[0], "--out", tmp_path / shard[0]]
        assert edgeproof("verify", bundle, *options).exit_code == 0
    assert edgeproof("merge", tmp_path / "2", tmp_path / "1", "--out", tmp_path / "merged").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr("runtime.attacks.oracle.Oracle.logits", stopping(after=60))
        result = edgeproof("verify", bundle, *SUITE, *lattice, "--out", tmp_path / "cut")
    assert result.exit_code == 130
    assert (tmp_path / "cut" / "journal.jsonl").read_bytes().count(b"\n") > 2
    cut = judged(bundle, tmp_path / "cut", *lattice, "--batch", "7", "--resume")
    evidence = (tmp_path / "whole" / "evidence.npz").read_bytes()
    for name, report in (("merged", load_report(tmp_path / "merged")), ("cut", cut)):
        assert (tmp_path / name / "evidence.npz").read_bytes() == evidence
        assert [row.broken for row in report.attacks] == [row.broken for row in whole.attacks]
        assert (report.agreement, report.parent_agreement) == (whole.agreement, whole.parent_agreement)
        assert (report.eps_curve, report.checks) == (whole.eps_curve, whole.checks)


def stopping(after):
    """Return `Oracle.logits` that is interrupted when it is called once more than `after` times."""
    logits, calls = Oracle.logits, []

    def until(self, points, x):
        calls.append(None)
        if len(calls) > after:
            raise KeyboardInterrupt
        return logits(self, points, x)

    return until


def test_a_run_is_not_resumed_with_the_gradient_of_another_parent(tmp_path):
    bundle, other = quantised_bundle(tmp_path / "b"), quantised_bundle(tmp_path / "o", names=("int8",))
    judged(bundle, tmp_path / "run")
    result = edgeproof("verify", other, *SUITE, "--out", tmp_path / "run", "--resume")
    assert result.exit_code == 3
    assert "began with parent_gradient_sha256 " in result.stderr


def test_the_gate_is_on_the_union_and_may_stop_early(tmp_path):
    bundle = quantised_bundle(tmp_path / "b")
    robust = judged(bundle, tmp_path / "run").robust_accuracy.value
    gate = ("--fail-under", f"{min(robust + 0.3, 1):.3f}")
    assert judged(bundle, tmp_path / "failed", *gate, code=1).verdict == "failed"
    early = judged(bundle, tmp_path / "early", *gate, "--until-decided", code=1)
    assert early.sequential.decided
    assert early.sequential.judged < 60
    assert who(early) == [*BOTH, SQUARE]


def test_a_gradient_graph_of_another_network_leaves_no_verdict(tmp_path):
    weight, bias, _, _ = linear_task(seed=5)
    bundle = quantised_bundle(tmp_path / "b", own=graph(GRADIENT, weight, bias))
    report = judged(bundle, tmp_path / "run", code=5)
    (finding,) = (each for each in report.warnings if each.check == "agreement")
    assert finding.blocking
    agreement = report.agreement
    assert f"on {agreement.same_prediction} of {agreement.n} points" in finding.message
    assert agreement.same_prediction < 0.6 * agreement.n
    assert report.parent_agreement.same_prediction > 0.9 * report.parent_agreement.n


@pytest.mark.parametrize("names", [("fp32", "int8"), ("fp32", "fp16")])
def test_the_drop_is_measured_from_the_same_bundles_fp32(tmp_path, names):
    bundle = quantised_bundle(tmp_path / "b", names=names)
    asked = ("--attacks", "fgsm,pgd,cw", "--max-drop", "50%", "--fail-under", "1%")
    report = judged(bundle, tmp_path / "run", *asked)
    parent = load_report(tmp_path / "run-fp32")
    expected = [(name, "own") for name in ("fgsm", "pgd", "cw")] + ([SQUARE] if "int8" in names else [])
    assert (parent.artifact.precision, who(parent)) == ("fp32", expected)
    assert report.request.against == parent.request_sha256
    assert report.paired.difference == pytest.approx(report.robust_accuracy.value - parent.robust_accuracy.value)
    assert len(report.reasons) == 2


def test_a_run_that_square_spared_is_not_compared_with(tmp_path):
    bundle = quantised_bundle(tmp_path / "b")
    judged(bundle, tmp_path / "fp32", "--precision", "fp32")
    result = edgeproof("verify", bundle, *SUITE, "--against", tmp_path / "fp32", "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert "only one of the two ran square\nhint: run it again with --attacks clean,fgsm,pgd,square" in result.stderr


def test_the_summary_tells_the_gradients_apart(tmp_path):
    result = edgeproof("verify", quantised_bundle(tmp_path / "b"), *SUITE, "--out", tmp_path / "run")
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert [name for name in names if name in ("pgd", "pgd (parent)", "square")] == ["pgd", "pgd (parent)", "square"]
    assert (
        "rows marked (parent) follow the gradient of the fp32 graph it was made from; int8 judged every point"
        in result.stdout
    )
    assert json.loads((tmp_path / "run" / "report.json").read_text())["attacks"][3]["gradient"] == "parent"
