"""A gate holds for the threat that it was given for, and needs evidence of more than one step and with gradients."""

import json

import numpy as np
import pytest

from runtime.checks.claim import moves_pixels
from runtime.spec import Gate, ThreatModel
from runtime.terminal.progress import Silent
from runtime.verdict.case import verify
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from runtime.words import radius
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import EPS, SHAPE

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def gated(tmp_path, files):
    """A bundle that claims EPS and a gate that it reaches."""
    return write_bundle(tmp_path / "gated", files, n=60, gate=Gate(fail_under=0.05))


def judged(*arguments):
    """Return exit code, verdict, and what was found: {check: message}."""
    result = edgeproof("verify", *arguments, "--out", "run", "--json")
    report = json.loads(result.stdout)
    return result.exit_code, report["verdict"], {each["check"]: each["message"] for each in report["warnings"]}


def test_the_claim_as_it_stands_passes_its_gate(gated):
    assert judged(gated) == (0, "passed", {})


SHORT = {
    "smaller eps": (["--eps", EPS / 2], "eps is 0.005, and the claim is 0.01"),
    "no eps at all": (["--eps", 0], "eps is 0, and the claim is 0.01"),
    "fewer images": (["--n", 59], "the run has 59 images, and the claim needs 60"),
    "fewer attacks": (["--attacks", "fgsm,pgd"], "the attacks are fgsm, pgd, and the claim needs fgsm, pgd, cw"),
}


@pytest.mark.parametrize(("options", "message"), SHORT.values(), ids=SHORT)
@pytest.mark.parametrize("gate", [[], ["--fail-under", "1%"]], ids=["its own", "by hand"])
def test_less_than_claimed_passes_no_gate_whoever_asks_for_it(gated, gate, options, message):
    code, verdict, found = judged(gated, *gate, *options)
    assert (code, verdict) == (5, "inconclusive")
    assert found["claimed-threat"] == f"the run is weaker than the artifact's claim: {message}"


@pytest.mark.parametrize(("options", "message"), SHORT.values(), ids=SHORT)
def test_a_gate_that_cannot_pass_is_announced_before_the_first_attack(gated, options, message):
    said = edgeproof("verify", gated, *options, "--out", "run").stderr
    assert said.startswith("this run cannot pass its gate, only fail it: ")
    assert f"{message}; --no-gate only measures\n" in said
    assert "clean: " in said.partition("--no-gate only measures")[2]


@pytest.mark.parametrize(("gate", "said"), [("0%", True), ("1%", False)])
def test_that_no_model_fails_a_gate_of_0_percent_is_said_before_the_first_attack(gated, gate, said):
    result = edgeproof("verify", gated, "--fail-under", gate, "--out", "run")
    before = result.stderr.partition("clean: ")[0]
    assert ("a gate of 0 % fails no model" in before) is said
    assert ("this gate asks nothing" in result.stdout) is said


BLIND = {"no gradient": ("--gradient", "none"), "Square alone": ("--attacks", "clean,square")}


@pytest.mark.parametrize("options", BLIND.values(), ids=BLIND)
def test_that_searches_without_gradients_pass_no_gate_is_said_before_the_first_attack(gated, options):
    few = ("verify", gated, "--n", 4, *options)
    said, _, later = edgeproof(*few, "--out", "run").stderr.partition(
        "this run cannot pass its gate, only fail it: no attack follows a gradient, which is weak evidence "
        "(--accept-blind-evidence lets it pass); --no-gate only measures\n"
    )
    assert "clean: " not in said
    assert "clean: " in later
    for free in ("--accept-blind-evidence", "--no-gate"):
        assert "follows a gradient" not in edgeproof(*few, free, "--out", free).stderr


@pytest.mark.parametrize("options", [[], ["--n", 59, "--no-gate"]])
def test_a_run_that_can_pass_or_has_no_gate_announces_nothing(gated, options):
    assert "cannot pass" not in edgeproof("verify", gated, *options, "--out", "run").stderr


@pytest.mark.parametrize("options", [["--n", 59], ["--attacks", "pgd"]])
def test_a_bundle_without_a_gate_claims_its_eps_on_its_images_all_the_same(bundle, options):
    assert judged(bundle, "--fail-under", "1%", *options)[:2] == (5, "inconclusive")


def test_images_of_ones_own_are_as_many_as_those_claimed(gated, task):
    """Fewer of another set prove no more than fewer of the bundle's."""
    _, _, images, labels = task
    for n, verdict in ((59, "inconclusive"), (60, "passed")):
        np.savez("own.npz", x=np.round(images[:n] * 255).astype(np.uint8), y=labels[:n])
        result = edgeproof("verify", gated, "--data", "own.npz", "--out", f"run{n}", "--json")
        assert json.loads(result.stdout)["verdict"] == verdict


def test_an_eps_of_zero_passes_no_gate_though_no_more_is_claimed(tmp_path, files):
    bundle = write_bundle(tmp_path / "claims nothing", files, n=60, threat_model=ThreatModel(eps=0))
    code, verdict, found = judged(bundle, "--fail-under", "1%")
    assert (code, verdict, found["claimed-threat"]) == (5, "inconclusive", "eps is 0: no image was changed")


@pytest.mark.parametrize("eps", [1e-9, 2.0**-25])
def test_an_eps_that_moves_no_white_pixel_counts_as_none(tmp_path, files, eps):
    bundle = write_bundle(tmp_path / "claims nothing", files, n=60, threat_model=ThreatModel(eps=0))
    code, verdict, found = judged(bundle, "--fail-under", "1%", "--eps", eps)
    words = f"eps is {radius(eps)}, too small for float32: no white pixel was changed"
    assert (code, verdict, found["claimed-threat"]) == (5, "inconclusive", words)


def test_the_least_eps_that_moves_every_pixel_is_no_zero():
    eps = float(np.nextafter(np.float32(2**-25), np.float32(1)))
    assert np.float32(1) - np.float32(eps) < 1
    assert moves_pixels(eps)
    assert not moves_pixels(0)


def test_a_model_that_claims_nothing_is_judged_by_its_interval_and_what_the_checks_can_see(linear):
    session, images = linear
    subject = Subject(session, "tiny", ("a", "b", "c"), SHAPE, images, "", ThreatModel(eps=EPS))
    options = VerifyOptions(attacks=("pgd",), n=50, fail_under=0.01)
    report = verify(subject, options, Silent()).report
    assert (report.verdict, report.request.claim.n) == ("passed", None)


def test_a_larger_eps_and_more_attacks_than_claimed_pass(gated):
    assert judged(gated, "--eps", 1.01 * EPS, "--attacks", "fgsm,pgd,cw,apgd-ce")[:2] == (0, "passed")


def test_too_little_evidence_fails_a_gate_all_the_same(gated):
    code, verdict, found = judged(gated, "--eps", EPS / 2, "--attacks", "fgsm", "--fail-under", "99%")
    assert (code, verdict, found.keys()) == (1, "failed", {"claimed-threat", "one-step"})


def test_without_a_gate_less_than_claimed_is_measured(gated):
    assert judged(gated, "--eps", EPS / 2, "--attacks", "fgsm", "--n", 40, "--no-gate") == (0, "measured", {})


@pytest.mark.parametrize("attacks", ["fgsm", "clean,fgsm", "fgsm,cw-l2", "fgsm,square"])
def test_one_step_alone_passes_no_gate(gated, attacks):
    code, verdict, found = judged(gated, "--attacks", attacks, "--fail-under", "1%")
    assert (code, verdict) == (5, "inconclusive")
    assert found["one-step"] == "fgsm is the only attack with a gradient, and one step is no evidence of robustness"


def test_searches_without_gradients_pass_no_gate_unless_a_person_accepts_them(gated):
    blind = (gated, "--gradient", "none", "--fail-under", "1%")
    code, verdict, found = judged(*blind)
    assert (code, verdict, found.keys()) == (5, "inconclusive", {"black-box-only"})
    edgeproof("verify", *blind, "--accept-blind-evidence", "--out", "accepted")
    with open("accepted/report.json") as file:
        report = json.load(file)
    assert report["verdict"] == "passed"
    assert report["request"]["accept_blind_evidence"] is True
    assert "--accept-blind-evidence" in report["request"]["command"]
    (warning,) = report["warnings"]
    assert (warning["check"], warning["blocking"]) == ("black-box-only", False)


def test_the_claim_stands_in_the_request(gated):
    edgeproof("verify", gated, "--attacks", "pgd", "--no-gate", "--out", "run")
    with open("run/run.json") as file:
        claim = json.load(file)["request"]["claim"]
    assert claim == {
        "threat_model": {"norm": "linf", "eps": EPS}, "gate": {"fail_under": 0.05, "max_drop": None}, "n": 60,
    }  # fmt: skip
