"""An attestation says what the report says, of what was judged, and in-toto's own libraries read it."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from runtime.attestation.figures import figures_of
from runtime.attestation.statement import attest, named_tests, read_attestation, result_of
from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import fingerprint, load_trust
from runtime.errors import BadInput
from runtime.files import sha256
from runtime.records.report import load_report
from runtime.report.junit import suite_cases
from runtime.spec import Gate
from tests.command_line import edgeproof
from tests.runtime.attestation.conftest import figures


@pytest.fixture
def report(judged):
    return load_report(judged / "run")


def test_the_subjects_are_the_files_that_were_judged(case):
    subjects = {each["name"]: each["digest"]["sha256"] for each in case.statement()["subject"]}
    assert subjects == {
        name: sha256((case.bundle / name).read_bytes()) for name in ("manifest.json", "model.fp32.onnx")
    }


def test_the_figures_are_those_of_the_report_whose_digest_it_holds(case, report):
    configuration = case.statement()["predicate"]["configuration"]
    assert configuration[0]["digest"]["sha256"] == sha256((case.place / "run/report.json").read_bytes())
    said = figures(case.statement())
    assert said["robust_accuracy"] == report.robust_accuracy.value
    assert (said["low"], said["high"]) == report.robust_accuracy.ci95
    assert said["threat_model"]["eps"] == report.threat_model.eps
    assert [attack["name"] for attack in said["attacks"]] == [row.name for row in report.attacks]
    assert said["measured"] == report.started
    assert 0 < said["may_hide"] < 1
    assert configuration[1]["digest"]["sha256"] == report.data.sha256


def test_a_verdict_by_a_plugin_of_onnx_runtime_is_attested_as_any(report):
    artifact = report.artifact.model_copy(update={"provider": "plugin:openvino"})
    assert figures_of(report.model_copy(update={"artifact": artifact})).provider == "plugin:openvino"


def test_gates_and_checks_are_named_as_in_junit(case, report):
    predicate = case.statement()["predicate"]
    cases = [f"{each.kind}: {each.name}" for each in suite_cases(report) if each.outcome != "skipped"]
    named = [name for tests in ("passedTests", "warnedTests", "failedTests") for name in predicate[tests]]
    assert sorted(named) == sorted(name for name in cases if not name.startswith("attack"))
    assert predicate["result"] == ("WARNED" if predicate["warnedTests"] else "PASSED")
    assert "gate: robust accuracy of at least 1.0 %" in predicate["passedTests"]


@pytest.mark.parametrize("verdict", ["failed", "inconclusive", "measured"])
def test_only_a_verdict_that_passed_is_no_failure(report, verdict):
    assert result_of(report.model_copy(update={"verdict": verdict}), []) == "FAILED"
    assert result_of(report, []) == "PASSED"
    assert result_of(report, ["check: x"]) == "WARNED"


def test_a_gate_that_is_not_decided_is_attested_as_not_passed(judged, report, tmp_path):
    command = ("verify", judged / "bundle", "--attest", judged / "key.pem", "--out", tmp_path / "run")
    at_the_figure = f"{round(report.robust_accuracy.value, 2)}"
    assert edgeproof(*command, "--fail-under", at_the_figure).exit_code == 5
    attestation = read_attestation(tmp_path / "run/attestation.json", load_trust(judged / "judge.pem"))
    assert (attestation.result, attestation.figures.verdict) == ("FAILED", "inconclusive")
    assert [name for name in attestation.failed if name.startswith("gate: robust accuracy of at least")]


def test_a_run_without_a_gate_has_nothing_to_attest(report):
    with pytest.raises(BadInput, match="no verdict to attest"):
        figures_of(report.model_copy(update={"verdict": "measured", "gate": Gate()}))


def test_an_attack_beyond_eps_is_no_part_of_it(report):
    beyond = report.attacks[0].model_copy(update={"name": "cw-l2", "accuracy": 0.0})
    changed = report.model_copy(update={"attacks": (*report.attacks, beyond)})
    assert figures_of(changed) == figures_of(report)


def test_an_engine_is_a_subject_too(judged, report, key):
    built = report.model_copy(update={"artifact": report.artifact.model_copy(update={"engine_sha256": "e" * 64})})
    envelope = json.loads(attest(built, open_bundle(judged / "bundle"), key))
    subjects = json.loads(base64.b64decode(envelope["payload"]))["subject"]
    assert subjects[-1] == {"name": "engine", "digest": {"sha256": "e" * 64}}


def test_in_totos_own_library_reads_statement_and_predicate(case):
    payload = base64.b64decode(json.loads(case.attestation.read_text())["payload"])
    statement = json_format.Parse(payload, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    assert statement.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
    predicate = json_format.Parse(json.dumps(json.loads(payload)["predicate"]), test_result_pb2.TestResult())
    assert predicate.result in ("PASSED", "WARNED")
    assert list(predicate.passed_tests) == case.statement()["predicate"]["passedTests"]
    annotations = json_format.MessageToDict(predicate.configuration[0].annotations)
    assert annotations["robust_accuracy"] == figures(case.statement())["robust_accuracy"]


def test_securesystemslib_verifies_the_envelope_with_that_key_alone(case, key):
    envelope = Envelope.from_dict(json.loads(case.attestation.read_text()))
    named = fingerprint(key.public_key())
    assert list(envelope.verify([SSlibKey.from_crypto(key.public_key(), keyid=named)], 1)) == [named]
    stranger = SSlibKey.from_crypto(ec.generate_private_key(ec.SECP256R1()).public_key(), keyid=named)
    with pytest.raises(VerificationError):
        envelope.verify([stranger], 1)


def test_an_envelope_that_securesystemslib_signed_is_read(case, key, tmp_path):
    from securesystemslib.signer import CryptoSigner

    ours = Envelope.from_dict(json.loads(case.attestation.read_text()))
    theirs = Envelope(ours.payload, ours.payload_type, {})
    named = fingerprint(key.public_key())
    theirs.sign(CryptoSigner(key, SSlibKey.from_crypto(key.public_key(), keyid=named)))
    (tmp_path / "theirs.json").write_text(json.dumps(theirs.to_dict()))
    trust = load_trust(case.place / "judge.pem")
    assert read_attestation(tmp_path / "theirs.json", trust) == read_attestation(case.attestation, trust)


def test_inspect_says_what_it_says_of_which_bundle_and_who_signed(case, key):
    result = edgeproof("inspect", "--attestation", case.attestation, "--trust", case.place / "judge.pem")
    assert result.exit_code == 0, result.stderr
    assert f"signed with key {fingerprint(key.public_key())}" in result.stdout
    assert "linf, eps 0.01, by fgsm, pgd, cw" in result.stdout
    assert "no bundle was named" in result.stdout
    result = edgeproof("inspect", case.bundle, "--attestation", case.attestation)
    assert "not authenticated" in result.stdout
    assert "it is of this bundle" in result.stdout


def test_inspect_needs_something_to_look_into():
    assert edgeproof("inspect").exit_code == 2


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--no-gate"], "there is no gate"),
        (["--shard", "1/2"], "leave out --shard"),
    ],
)
def test_a_run_that_says_nothing_of_the_whole_is_refused_before_work(judged, tmp_path, asked, says):
    command = ("verify", judged / "bundle", "--attest", judged / "key.pem", "--out", tmp_path / "run")
    result = edgeproof(*command, *asked)
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_finished_is_not_signed_afterwards(judged, tmp_path):
    command = ("verify", judged / "bundle", "--out", tmp_path / "run")
    assert edgeproof(*command).exit_code == 0
    result = edgeproof(*command, "--resume", "--attest", judged / "key.pem")
    assert (result.exit_code, "finished already" in result.stderr) == (2, True)


def test_two_attestations_of_one_report_say_the_same(judged, report, key):
    bundle = open_bundle(judged / "bundle")
    one, other = (json.loads(attest(report, bundle, key))["payload"] for _ in range(2))
    assert one == other


def test_what_was_not_run_is_no_test(report):
    names = [name for names in named_tests(report).values() for name in names]
    absent = [check.check for check in report.checks if check.state == "not run"]
    assert absent
    assert not {f"check: {name}" for name in absent} & set(names)
