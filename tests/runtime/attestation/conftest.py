"""A bundle that was judged and attested: made once, and what is made of it in each test."""

import base64
import json
import shutil
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtime.bundle.dsse import seal
from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import fingerprint
from runtime.spec import Gate
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import pem, write_bundle
from tests.tiny import bundle_files, linear_task

POLICY = """\
keys = "judge.pem"
robust_accuracy = "1%"
eps = 0.01
attacks = ["fgsm", "pgd", "cw"]
"""


@pytest.fixture(scope="session")
def judged(tmp_path_factory, key):
    """A directory with a bundle, the judge's keys and a run of it that passed, with its attestation."""
    place = tmp_path_factory.mktemp("judged")
    write_bundle(place / "bundle", bundle_files(linear_task()), n=60, gate=Gate(fail_under=0.01))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (place / "key.pem").write_bytes(private)
    (place / "judge.pem").write_bytes(pem(key.public_key()))
    result = edgeproof("verify", place / "bundle", "--attest", place / "key.pem", "--out", place / "run")
    assert result.exit_code == 0, result.stdout + result.stderr
    return place


@pytest.fixture
def case(judged, tmp_path, key):
    """A copy: where the bundle, the attestation and the policy lie, and what changes the last two."""
    place = tmp_path / "judged"
    shutil.copytree(judged, place)
    attestation, policy = place / "run" / "attestation.json", place / "policy.toml"
    policy.write_text(POLICY)

    def statement():
        return json.loads(base64.b64decode(json.loads(attestation.read_text())["payload"]))

    def forge(change, signer=key, keyid=None):
        record = statement()
        change(record)
        named = keyid or fingerprint(signer.public_key())
        attestation.write_text(json.dumps(seal(json.dumps(record).encode(), signer, named)))

    def envelope(change):
        record = json.loads(attestation.read_text())
        change(record)
        attestation.write_text(json.dumps(record))

    def install():
        asked = ("--attestation", attestation, "--require-attestation", policy)
        return edgeproof("install", place / "bundle", "--to", place / "device", *asked)

    return SimpleNamespace(
        place=place,
        bundle=place / "bundle",
        opened=lambda: open_bundle(place / "bundle"),
        attestation=attestation,
        policy=policy,
        statement=statement,
        forge=forge,
        envelope=envelope,
        install=install,
    )


def figures(statement):
    """Return the figures in a statement, to be changed."""
    return statement["predicate"]["configuration"][0]["annotations"]
