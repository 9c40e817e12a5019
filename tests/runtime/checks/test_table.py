from dataclasses import replace

import numpy as np
import pytest

from runtime.checks.claim import WEAK_EVIDENCE
from runtime.checks.power import powers_of_tests
from runtime.checks.table import CHECKS, check
from runtime.images.image_set import ImageSet
from runtime.records.measurements import Agreement, CurvePoint, Fusion, GradientTest, Probe, Searched
from runtime.session import GraphFacts
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from runtime.words import percent
from tests.fakes import LinearSession, artifact, planned

N = 1000


@pytest.fixture(scope="module")
def outcome():
    """What fgsm, pgd and square find on a thousand images far from any boundary."""
    images = ImageSet("grey", np.full((N, 1, 4, 4), 0.5, np.float32), np.zeros(N, int), np.arange(N))
    session = LinearSession(np.eye(3, 16, dtype=np.float32), np.float32([9, 0, 0]))
    target = Target(session, images, 3, 500)
    found = run_suite(target, planned(target, ["fgsm", "pgd"]), eps=0.01, seed=0, keep_all=False, progress=Silent())
    square = found.attacks[1].model_copy(update={"name": "square", "gradient": "none"})
    aa = square.model_copy(update={"name": "aa", "gradient": "own"})
    return replace(found, attacks=(*found.attacks, square, aa), far=CurvePoint(eps=0.25, n=256, accuracy=0.3))


def state(outcome, name, precision="fp32", **facts):
    attacked = artifact(precision, GraphFacts(**facts) if facts else None)
    results = check(outcome, classes=3, artifact=attacked)
    return {result.check: result for result in results}[name].state


def rows(outcome, name, **changes):
    return replace(
        outcome,
        attacks=tuple(row.model_copy(update=changes if row.name == name else {}) for row in outcome.attacks),
    )


@pytest.mark.parametrize(("randomised", "expected"), [(0, "quiet"), (1, "found")])
def test_one_image_with_two_answers_is_randomised(outcome, randomised, expected):
    assert state(replace(outcome, probe=Probe(n=256, randomised=randomised, probabilities=0)), "randomised") == expected


@pytest.mark.parametrize(("alone", "expected"), [(37, "quiet"), (38, "found")])
def test_images_that_are_answered_otherwise_alone_are_found_where_they_are_many(outcome, alone, expected):
    probe = Probe(n=256, randomised=0, probabilities=0, otherwise_alone=alone)
    assert state(replace(outcome, probe=probe), "randomised") == expected


@pytest.mark.parametrize(("probabilities", "expected"), [(255, "quiet"), (256, "found")])
def test_an_output_is_a_softmax_where_every_answer_is_a_distribution(outcome, probabilities, expected):
    assert state(replace(outcome, probe=Probe(n=256, randomised=0, probabilities=probabilities)), "softmax") == expected


@pytest.mark.parametrize(("accuracy", "expected"), [(98 / 256, "quiet"), (110 / 256, "found")])
def test_far_accuracy_must_be_above_chance_beyond_its_interval(outcome, accuracy, expected):
    far = CurvePoint(eps=0.25, n=256, accuracy=accuracy)
    assert state(replace(outcome, far=far), "far-from-chance") == expected


@pytest.mark.parametrize(
    ("only_fgsm", "only_pgd", "expected"), [(7, 0, "quiet"), (8, 0, "found"), (0, 30, "quiet"), (30, 30, "quiet")]
)
def test_fgsm_is_stronger_where_mcnemar_says_so_at_one_in_a_hundred(outcome, only_fgsm, only_pgd, expected):
    place = np.arange(N)
    fell = {"fgsm": place < only_fgsm, "pgd": (place >= only_fgsm) & (place < only_fgsm + only_pgd)}
    assert state(replace(outcome, evidence=replace(outcome.evidence, fell=fell)), "fgsm-over-pgd") == expected


def with_autoattack(outcome, **fell):
    """Images fallen to pgd by each gradient and to the first stage of aa, which is by the artifact's own."""
    stage = outcome.attacks[1].model_copy(update={"name": "apgd-ce", "cascade": True})
    lent = tuple(outcome.attacks[1].model_copy(update={"gradient": "parent"}) for name in fell if "(parent)" in name)
    flags = {name: np.isin(np.arange(N), places) for name, places in fell.items()}
    evidence = replace(outcome.evidence, fell=flags)
    return replace(outcome, attacks=(*outcome.attacks, *lent, stage), evidence=evidence)


@pytest.mark.parametrize(("pgd", "expected"), [(441, "quiet"), (440, "quiet"), (439, "found"), (700, "quiet")])
def test_pgd_may_be_six_points_above_autoattack(outcome, pgd, expected):
    changed = with_autoattack(outcome, **{"pgd": range(pgd), "apgd-ce": range(500)})
    assert state(changed, "pgd-over-aa") == expected


@pytest.mark.parametrize(("parent", "expected"), [(range(400, 500), "quiet"), (range(380, 420), "found")])
def test_pgd_beside_autoattack_is_pgd_by_every_gradient(outcome, parent, expected):
    changed = with_autoattack(outcome, **{"pgd": range(400), "pgd (parent)": parent, "apgd-ce": range(500)})
    assert state(changed, "pgd-over-aa", precision="int8") == expected


def searched(n, alone, **by):
    return Searched(n=n, broken=alone, alone=alone, by=by or {"square": alone}, seconds=0, forwards=0, gradients=0)


@pytest.mark.parametrize(
    ("n", "alone", "expected"),
    [(64, 2, "quiet"), (64, 3, "found"), (128, 3, "quiet"), (128, 4, "found"), (256, 4, "quiet"), (256, 5, "found")],
)
def test_blind_searches_may_break_what_half_a_percent_explains(outcome, n, alone, expected):
    control = replace(outcome, blind_control=searched(n, alone, rays=alone), square_alone=searched(n, alone))
    results = {result.check: result for result in check(control, classes=3, artifact=artifact(), gated=True)}
    for name in ("blind-control", "square-alone"):
        assert (results[name].state, results[name].blocking) == (expected, True)
    assert (
        state(control, "square-alone", precision="int8") == expected
    )  # its surrogate misses no more than a slope does


def test_without_a_gate_there_is_no_blind_control_and_the_report_says_so(outcome):
    (result,) = (each for each in check(outcome, classes=3, artifact=artifact()) if each.check == "blind-control")
    assert (result.state, result.message) == ("not run", "not run: no gate was asked for")


def test_a_check_states_the_smallest_effect_that_it_could_have_seen(outcome):
    control = replace(
        outcome,
        blind_control=searched(64, 0),
        gradient_test=GradientTest(n=256, apart_near=0, apart_far=0, unsteady=0, lines=48, jumps=0),
    )
    said = {each.check: each.message for each in check(control, classes=3, artifact=artifact(), gated=True)}
    assert "the check notices a share of 9.5 %" in said["blind-control"]
    assert "a false gradient on 18.6 % of the images" in said["gradient-holds"]
    assert "a false gradient on 32.8 % of the images" in said["margin-jumps"]


LIMITS = {256: 38, 48: 11}
"""So many images fail by chance, where a tenth of all would, at most once in a hundred samples."""


@pytest.mark.parametrize("what", ["apart_near", "apart_far", "unsteady", "jumps"])
@pytest.mark.parametrize(("n", "limit"), LIMITS.items())
def test_a_gradient_test_blocks_where_more_images_fail_than_a_tenth_explains(outcome, what, n, limit):
    name = {"unsteady": "gradient-steady", "jumps": "margin-jumps"}.get(what, "gradient-holds")
    for failed, expected in ((limit - 1, "quiet"), (limit, "found")):
        counts = {"apart_near": 0, "apart_far": 0, "unsteady": 0, "jumps": 0, what: failed}
        changed = replace(outcome, gradient_test=GradientTest(n=n, lines=n, **counts))
        assert state(changed, name) == expected


@pytest.mark.parametrize(("unrelated", "blocks"), [(None, False), (0, False), (32, False), (33, True), (48, True)])
def test_a_surrogate_is_asked_for_long_steps_alone_and_blocks_where_it_has_nothing_to_do_with_it(
    outcome, unrelated, blocks
):
    changed = replace(outcome, gradient_test=GradientTest(n=48, surrogate=True, apart_far=48, unrelated=unrelated))
    results = {each.check: each for each in check(changed, classes=3, artifact=artifact("int8"))}
    assert results["gradient-holds"].state == ("found" if blocks else "quiet")
    message = results["gradient-holds"].message
    assert "it fails to predict it over eps/2 on 48, which is allowed" in message
    assert (f"the surrogate gradient is unrelated to the artifact on {unrelated} of 48 images" in message) == (
        unrelated is not None
    )
    assert results["gradient-steady"].state == results["margin-jumps"].state == "not run"


@pytest.mark.parametrize(("jumps", "blocks"), [(0, False), (32, False), (33, True), (48, True)])
def test_a_surrogate_blocks_where_the_class_changes_in_one_step_on_more_than_half_of_the_lines(outcome, jumps, blocks):
    test = GradientTest(n=60, surrogate=True, apart_far=60, unrelated=0, lines=48, jumps=jumps)
    results = {
        each.check: each
        for each in check(replace(outcome, gradient_test=test), classes=3, artifact=artifact("int8"), gated=True)
    }
    jumped = results["margin-jumps"]
    assert (jumped.state, jumped.blocking) == ("found" if blocks else "quiet", True)
    assert f"in one step on {jumps} of 48 lines" in jumped.message
    assert results["enough-images"].state == "quiet"


@pytest.mark.parametrize(
    ("same", "optimised", "plain", "expected"),
    [(256, 0, 0, ("quiet", False)), (250, 3, 3, ("found", False)), (200, 30, 2, ("found", True))],
)
def test_other_classes_by_fusion_are_a_note_and_another_accuracy_blocks(outcome, same, optimised, plain, expected):
    found = Fusion(n=256, same_prediction=same, only_optimised=optimised, only_plain=plain)
    results = {each.check: each for each in check(replace(outcome, fusion=found), classes=3, artifact=artifact())}
    assert (results["fusion"].state, results["fusion"].blocking) == expected


def test_an_attack_that_keeps_to_no_ball_is_no_attack_with_gradients(outcome):
    row = outcome.attacks[1].model_copy(update={"name": "cw-l2"})
    evidence = replace(outcome.evidence, fell={"square": np.ones(N, bool)})
    blind = replace(outcome, attacks=(row, outcome.attacks[2]), far=None, evidence=evidence)
    assert state(blind, "black-box-only") == "found"
    assert state(blind, "zero-gradient") == state(blind, "square-alone") == "not run"
    assert state(replace(blind, attacks=(row,)), "black-box-only") == "not run"


def test_an_attack_that_keeps_to_no_ball_asks_for_no_pass_besides():
    images = ImageSet("grey", np.full((4, 1, 4, 4), 0.5, np.float32), np.zeros(4, int), np.arange(4))
    session = LinearSession(np.eye(3, 16, dtype=np.float32), np.float32([9, 0, 0]))
    target = Target(session, images, 3, 4)
    found = run_suite(target, planned(target, ["cw-l2"]), eps=0.01, seed=0, keep_all=False, progress=Silent())
    assert (found.far, found.eps_curve, found.agreement) == (None, (), None)


@pytest.mark.parametrize(
    ("n", "zero", "expected"),
    [(16, 0, "quiet"), (16, 1, "quiet"), (16, 2, "found"), (1, 1, "found"), (N, 10, "quiet"), (N, 11, "found")],
)
def test_one_image_without_a_gradient_is_no_sign_unless_it_is_all(outcome, n, zero, expected):
    evidence = outcome.evidence.rows(np.arange(n))
    evidence.blind["own"][:] = np.arange(n) < zero
    assert state(replace(outcome, evidence=evidence), "zero-gradient") == expected


def test_a_check_whose_attack_did_not_run_says_so(outcome):
    alone = replace(outcome, attacks=outcome.attacks[2:3], far=None, evidence=replace(outcome.evidence, fell={}))
    results = {result.check: result for result in check(alone, classes=3, artifact=artifact())}
    absent = {name for name, result in results.items() if result.state == "not run"}
    needing = {"zero-gradient", "far-from-chance", "fgsm-over-pgd", "pgd-over-aa", "square-alone"}
    assert absent == needing | {
        "blind-control",
        "enough-images",
        "fusion",
        "margin-jumps",
    }  # of one class, without a gate and an engine
    assert all(results[name].message.startswith("not run: ") for name in absent)
    assert (results["black-box-only"].state, results["black-box-only"].blocking) == ("found", False)


def test_without_attacks_there_is_nothing_to_check(outcome):
    assert check(replace(outcome, attacks=()), classes=3, artifact=artifact()) == ()


@pytest.mark.parametrize("each", CHECKS, ids=lambda each: each.name)
def test_every_check_says_what_it_saw_and_what_to_do(outcome, each):
    (result,) = (result for result in check(outcome, classes=3, artifact=artifact()) if result.check == each.name)
    assert len(result.message.split()) > 3
    assert len(result.hint.split()) > 3
    assert not result.message.endswith(".")


@pytest.mark.parametrize(
    ("own", "parent", "expected"),
    [(92, 100, "quiet"), (83, 100, "found"), (100, 75, "quiet"), (100, 70, "found"), (None, 70, "found")],
)
def test_a_gradient_graph_may_disagree_beyond_chance_no_more_than_its_floor(outcome, own, parent, expected):
    seen = {name: count and Agreement(n=100, same_prediction=count) for name, count in (("a", own), ("b", parent))}
    changed = replace(outcome, agreement=seen["a"], parent_agreement=seen["b"])
    assert state(changed, "agreement", precision="int8") == expected


@pytest.mark.parametrize(("led", "expected"), [(("own",), "found"), (("own", "parent"), "quiet"), ((), "found")])
def test_a_quantised_artifact_wants_its_parents_gradient(outcome, led, expected):
    fgsm, square = outcome.attacks[0], outcome.attacks[2]
    attacks = (*(fgsm.model_copy(update={"gradient": each}) for each in led), square)
    assert state(replace(outcome, attacks=attacks), "no-parent", precision="int8") == expected
    assert state(replace(outcome, attacks=attacks), "no-parent", staircases=("Round",)) == expected
    assert state(replace(outcome, attacks=attacks), "no-parent") == "quiet"


def test_what_a_graph_is_decides_and_not_what_it_is_called(outcome):
    for facts in ({"quantised": True}, {"staircases": ("Sign",)}):
        assert state(outcome, "no-parent", **facts) == "found"
    assert state(outcome, "no-parent", precision="int8", quantised=False) == "quiet"


def test_a_surrogate_gradient_is_named_with_the_staircases_it_goes_through(outcome):
    results = check(outcome, classes=3, artifact=artifact(facts=GraphFacts(staircases=("Round", "Sign"))))
    (result,) = (each for each in results if each.check == "no-parent")
    assert result.message == (
        "there was no gradient of an fp32 parent: only its own straight-through gradient and Square attacked "
        "fp32 with staircases (Round, Sign)"
    )


@pytest.mark.parametrize(("quantised", "missing"), [(False, False), (True, True)])
def test_a_float_model_of_bytes_misses_no_parent(outcome, quantised, missing):
    facts = GraphFacts(quantised=quantised, staircases=("Cast", "Round"), takes_bytes=True)
    results = check(outcome, classes=3, artifact=artifact(facts=facts))
    (result,) = (each for each in results if each.check == "no-parent")
    assert result.state == "found"
    assert result.message.startswith(
        "there was no gradient of an fp32 parent" if missing else "each pixel is rounded to the byte"
    )
    assert ("a float model exists" in result.hint, "no parent is missing" in result.hint) == (
        missing,
        not missing,
    )


def test_a_gradient_is_zero_only_where_every_gradient_is(outcome):
    evidence = outcome.evidence.rows(np.arange(N))
    evidence.blind = {"own": np.ones(N, bool), "parent": np.zeros(N, bool)}
    assert state(replace(outcome, evidence=evidence), "zero-gradient", precision="int8") == "quiet"


@pytest.mark.parametrize(("n", "expected"), [(12, "found"), (30, "quiet"), (256, "quiet")])
def test_few_images_pass_no_gate(outcome, n, expected):
    few = replace(outcome, gradient_test=GradientTest(n=n, apart_near=0, apart_far=0, unsteady=0, lines=n, jumps=0))
    results = {each.check: each for each in check(few, classes=3, artifact=artifact(), gated=True)}
    assert (results["enough-images"].state, results["enough-images"].blocking) == (expected, True)
    assert "enough-images" in WEAK_EVIDENCE  # a gate may fail all the same
    if expected == "found":
        (power,) = (power for power in powers_of_tests(few.gradient_test) if power.check == "gradient-holds")
        assert results["enough-images"].message == (
            f"too few images: gradient-holds tested {n} that no attack broke, and could miss a false gradient on up to "
            f"{percent(power.share)} of them; a gate allows 50 %"
        )


@pytest.mark.parametrize(("lines", "expected"), [(12, "found"), (30, "quiet"), (0, "quiet")])
def test_few_lines_between_two_classes_pass_no_gate_either(outcome, lines, expected):
    """Of one class there is none: what nobody asked speaks for nothing, and nothing is taken for granted of it."""
    few = replace(
        outcome, gradient_test=GradientTest(n=256, apart_near=0, apart_far=0, unsteady=0, lines=lines, jumps=0)
    )
    results = {each.check: each for each in check(few, classes=3, artifact=artifact(), gated=True)}
    assert results["enough-images"].state == expected


@pytest.mark.parametrize(("n", "expected"), [(18, "found"), (24, "quiet"), (256, "quiet")])
def test_a_surrogate_is_judged_by_what_would_have_been_seen_of_it(outcome, n, expected):
    """It blocks where more than half of the images are unrelated: its power is not that of a slope."""
    few = replace(outcome, gradient_test=GradientTest(n=n, surrogate=True, apart_far=0, unrelated=0))
    results = {each.check: each for each in check(few, classes=3, artifact=artifact("int8"), gated=True)}
    assert results["enough-images"].state == expected
    if n == 256:
        assert "a false gradient on 62.6 % of the images" in results["gradient-holds"].message
