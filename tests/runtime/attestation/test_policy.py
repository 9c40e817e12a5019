"""What a device takes and what it refuses: forged attestations, those that do not meet its policy, bad policies."""

import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from runtime.attestation.policy import MAY_BE, Policy, load_policy, require
from runtime.attestation.statement import read_attestation
from runtime.bundle.signing import fingerprint, load_trust
from runtime.errors import BadAttestation, BadInput
from runtime.words import moment
from tests.runtime.attestation.conftest import POLICY, figures
from tests.runtime.bundle.bundles import write_bundle
from tests.tiny import HALVED, bundle_files, graph, linear_task

REFUSED = 3


def refused(case, says):
    """Check that a device refuses, for this reason, and that nothing was put in place."""
    result = case.install()
    assert result.exit_code == REFUSED, result.stdout + result.stderr
    assert says in result.stderr
    assert not (case.place / "device" / "current").exists()


def test_a_bundle_with_an_attestation_that_meets_the_policy_is_installed(case):
    result = case.install()
    assert result.exit_code == 0, result.stderr
    assert (case.place / "device" / "current" / "manifest.json").exists()


def test_an_attestation_of_another_key_is_refused(case):
    case.forge(lambda statement: None, ec.generate_private_key(ec.SECP256R1()))
    refused(case, "was signed with another key")


def test_one_that_names_the_trusted_key_and_is_of_another_is_refused(case, key):
    stranger = ec.generate_private_key(ec.SECP256R1())
    case.forge(lambda statement: None, stranger, keyid=fingerprint(key.public_key()))
    refused(case, "the signature does not hold")


def test_an_edited_predicate_is_refused(case):
    def edit(envelope):
        import base64

        text = base64.b64decode(envelope["payload"]).replace(b'"may_hide": 0.', b'"may_hide": 0.0')
        envelope["payload"] = base64.b64encode(text).decode()

    before = case.attestation.read_text()
    case.envelope(edit)
    assert case.attestation.read_text() != before
    refused(case, "the signature does not hold")


def test_one_of_another_bundle_is_refused(case):
    for path in case.bundle.iterdir():
        path.unlink()
    case.bundle.rmdir()
    write_bundle(case.bundle, bundle_files(linear_task(seed=1)), n=60)
    refused(case, "is about another bundle")


def test_one_of_the_version_before_is_no_proof_of_a_newer_one(case, rewrite):
    rewrite(case.bundle, "version", value=2)
    refused(case, "is about another bundle")


def test_one_of_a_precision_that_does_not_ship_is_refused(case):
    files = bundle_files(linear_task())
    weight, bias, *_ = linear_task()
    manifest = json.loads((case.bundle / "manifest.json").read_text())
    half = {"forward": "model.fp16.onnx", "gradient": None, "opset": 18}
    both = {**files, "model.fp16.onnx": graph(HALVED, weight, bias)}
    write_bundle(case.place / "two", both, n=60, graphs={**manifest["graphs"], "fp16": half}, ships="fp16")
    case.bundle.rename(case.place / "first")
    (case.place / "two").rename(case.bundle)
    subject = [{"name": "manifest.json", "digest": {"sha256": digest(case.bundle / "manifest.json")}}]
    case.forge(lambda statement: statement.update(subject=subject + statement["subject"][1:]))
    refused(case, "is about fp32, but")
    case.forge(lambda statement: figures(statement).update(precision="fp16"))
    refused(case, "ships fp16")


def digest(path):
    from runtime.files import sha256

    return sha256(path.read_bytes())


def test_another_payload_type_is_refused(case):
    case.envelope(lambda envelope: envelope.update(payloadType="application/json"))
    refused(case, "is no attestation: payloadType")


def test_two_signatures_are_refused(case):
    case.envelope(lambda envelope: envelope.update(signatures=envelope["signatures"] * 2))
    refused(case, "is no attestation: signatures")


def test_another_statement_or_predicate_is_refused(case):
    case.forge(lambda statement: statement.update(_type="https://in-toto.io/Statement/v0.1"))
    refused(case, "says something else than a verdict: _type")


def test_another_predicate_is_refused(case):
    case.forge(lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1"))
    refused(case, "says something else than a verdict: predicateType")


CHANGES = {
    "a failed verdict": ({"verdict": "failed"}, "contradicts itself"),
    "an inconclusive verdict": ({"verdict": "inconclusive"}, "contradicts itself"),
    "eps on the scale of bytes": ({"threat_model": {"norm": "linf", "eps": 8}}, "less than or equal to 1"),
    "eps in another norm": ({"threat_model": {"norm": "l2", "eps": 0.5}}, "norm"),
    "a smaller eps": (
        {"threat_model": {"norm": "linf", "eps": 0.009}},
        "eps is 0.009, but",
    ),
    "no eps": ({"threat_model": {"norm": "linf", "eps": 0}}, "eps is 0, but"),
    "a wide interval": ({"low": 0.005}, "at least 0.0 % (the low end of its interval is 0.5 %"),
    "more that may hide": ({"may_hide": 1.0}, "may have missed up to 100.0 points"),
    "an accuracy beside its interval": ({"robust_accuracy": 0.0001}, "outside of its interval"),
    "an accuracy above an attack's": ({"robust_accuracy": 1.0, "high": 1.0}, "above what an attack left"),
    "more right than there are": ({"correct": 61}, "than there are"),
    "a date in the future": ({"measured": "2999-01-01T00:00:00Z"}, "in the future"),
    "a date that is none": ({"measured": "2026-02-31T00:00:00Z"}, "measured"),
    "a date without a zone": ({"measured": "2026-01-01T00:00:00"}, "measured"),
    "no attacks": ({"attacks": []}, "attacks"),
    "a field that nobody knows": ({"more": 1}, "more"),
    "another schema": ({"schema": "edgeproof.attestation/2"}, "schema"),
    "not a number": ({"may_hide": float("nan")}, "may_hide"),
    "less than nothing may hide": ({"may_hide": -1.0}, "may_hide"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_trusted_key_does_not_make_this_acceptable(case, what):
    change, says = CHANGES[what]
    case.forge(lambda statement: figures(statement).update(change))
    refused(case, says)


def test_a_failed_test_is_no_pass_whatever_the_result_says(case):
    case.forge(lambda statement: statement["predicate"].update(failedTests=["gate: robust"], result="PASSED"))
    refused(case, "contradicts itself")
    case.forge(
        lambda statement: [statement["predicate"].update(result="FAILED"), figures(statement).update(verdict="failed")]
    )
    refused(case, "the verdict is failed")


def attack(name, **change):
    """Return what changes one attack in a statement."""

    def apply(statement):
        for row in figures(statement)["attacks"]:
            if row["name"] == name:
                row.update(change)

    return apply


def without_pgd(statement):
    said = figures(statement)
    said["attacks"] = [row for row in said["attacks"] if row["name"] != "pgd"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_pgd, "pgd did not run"),
        (attack("pgd", cascade=True), "pgd did not run"),
        (attack("pgd", attacked=1), "pgd ran on 1 of "),
        (attack("pgd", settings={"steps": 1, "step": 0.25}), "pgd ran with other settings"),
        (attack("pgd", settings={}), "pgd ran with other settings"),
    ],
)
def test_a_weaker_set_of_attacks_is_refused(case, change, says):
    case.forge(change)
    refused(case, says)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('robust_accuracy = "100%"', "the policy asks for 100.0 %"),
        ("largest_eps = 0.005", "the policy allows at most 0.005"),
        ("images = 61", "the policy asks for at least 61"),
        ('attacks = ["aa"]', "aa did not run"),
        ('backends = ["tensorrt"]', "the policy asks for tensorrt"),
        ('device = { cpu = "Jetson*" }', "the policy asks for Jetson*"),
        ('device = { board_of_another = "*x" }', "is not known"),
    ],
)
def test_what_a_policy_asks_for_besides_is_refused_where_it_is_not_so(case, line, says):
    name = line.partition(" ")[0]
    kept = [other for other in POLICY.splitlines() if not other.startswith(f"{name} ")]
    case.policy.write_text("\n".join([*kept, line]))
    refused(case, says)


def test_other_images_than_the_bundles_own_are_refused_unless_the_policy_names_them(case):
    case.forge(lambda statement: figures(statement)["data"].update(sha256="a" * 64, name="easy"))
    refused(case, "judges other images than the bundle's own: easy")
    case.policy.write_text(POLICY + f'data = ["{"a" * 64}"]\n')
    assert case.install().exit_code == 0


def test_an_attestation_expires(case):
    measured = moment(figures(case.statement())["measured"])
    case.policy.write_text(POLICY + "max_age_days = 30\n")
    bundle = case.opened()
    assert require(case.attestation, case.policy, bundle, measured + timedelta(days=30)).result != "FAILED"
    with pytest.raises(BadAttestation, match="more than 30 days ago"):
        require(case.attestation, case.policy, bundle, measured + timedelta(days=30, seconds=1))
    with pytest.raises(BadAttestation, match="in the future"):
        require(case.attestation, case.policy, bundle, measured - timedelta(minutes=6))


@pytest.mark.parametrize(
    "text",
    [
        POLICY + "robust_acuracy = 0.9\n",
        POLICY + "[more]\nx = 1\n",
        POLICY.replace('"1%"', "0"),
        POLICY.replace('"1%"', "nan"),
        POLICY.replace('"1%"', "45"),
        POLICY.replace("0.01", "8"),
        POLICY.replace("0.01", "-0.01"),
        POLICY.replace('["fgsm", "pgd", "cw"]', "[]"),
        POLICY.replace("fgsm", "fgsn"),
        POLICY.replace("fgsm", "cw-l2"),
        POLICY + "max_age_days = inf\n",
        POLICY + "max_age_days = 0\n",
        POLICY + "backends = []\n",
        POLICY + "eps = 0.02\n",
        *(POLICY.replace(line + "\n", "") for line in POLICY.splitlines()),
        "",
        "not toml",
    ],
)
def test_a_policy_that_is_not_understood_whole_is_refused(tmp_path, text):
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(BadInput, match=r"policy\.toml"):
        load_policy(tmp_path / "policy.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (POLICY + "robust_acuracy = 0.9\n", "a policy has no key robust_acuracy; did you mean robust_accuracy?"),
        (POLICY + "[more]\nx = 1\n", "a policy has no key more"),
        (
            POLICY.replace('"1%"', "45"),
            "robust_accuracy has to be a number above 0, at most 1, as 0.45 or '45%', and holds 45",
        ),
        (POLICY.replace("fgsm", "fgsn"), "and holds 'fgsn'; did you mean fgsm?"),
        (POLICY + "images = 0.5\n", "images has to be a whole number, at least 1, and holds 0.5"),
        (POLICY + "device = { cpu = 1 }\n", "device has to be a table of patterns, each a text, by the names of facts"),
        (POLICY.replace("eps = 0.01\n", ""), "the key eps is missing: a number above 0, at most 1"),
        ("schema = 'edgeproof.policy/2'\n" + POLICY, "schema has to be edgeproof.policy/1"),
    ],
)
def test_a_policy_that_is_wrong_is_told_by_its_key_and_what_that_may_be(tmp_path, text, says):
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(BadInput) as refusal:
        load_policy(tmp_path / "policy.toml")
    assert says in refusal.value.message


def test_every_key_of_a_policy_is_described():
    assert list(MAY_BE) == [field.alias or name for name, field in Policy.model_fields.items()]


def test_attestation_and_policy_are_given_together(case):
    from tests.command_line import edgeproof

    result = edgeproof("install", case.bundle, "--to", case.place / "device", "--attestation", case.attestation)
    assert (result.exit_code, "need each other" in result.stderr) == (2, True)


def test_a_changed_character_is_refused_or_changes_nothing_that_is_said(case):
    """Of an envelope its layout and the fields that a reader ignores are not signed."""
    whole, trust = case.attestation.read_bytes(), load_trust(case.place / "judge.pem")
    said, harmless = read_attestation(case.attestation, trust), 0
    places = range(0, len(whole), 3)
    for place in places:
        case.attestation.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert read_attestation(case.attestation, trust) == said
        except BadAttestation:
            continue
        harmless += 1
    assert harmless < len(places) / 10


@pytest.mark.parametrize("text", ["", "{}", "[]", "\x00", '{"payload": "*"}', "x" * (2**20 + 1)])
def test_what_is_no_attestation_is_told(case, text):
    case.attestation.write_text(text)
    refused(case, "attestation.json")


@pytest.mark.parametrize("keys", ["nowhere.pem", ".", "a/b.pem", "k" * 300])
def test_a_policy_whose_keys_cannot_be_read_is_refused(case, keys):
    case.policy.write_text(POLICY.replace("judge.pem", keys))
    with pytest.raises(BadInput, match=r"the keys of .*policy\.toml cannot be read") as caught:
        require(case.attestation, case.policy, case.opened())
    assert "beside the policy" in caught.value.hint
