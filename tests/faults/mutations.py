"""Edited at random: what a judge writes, an attestation, a policy, and what a bill of materials is made of.

Each function reads so many mutations, and returns how many were refused and how many were right; it raises where one is
neither. Nobody reads a bill of materials here: the run that it is made of is edited instead, and the bill is held to
CycloneDX's own schema.
"""

import io
import json
from contextlib import suppress

import numpy as np
import tomllib
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from runtime.attestation.policy import require
from runtime.attestation.statement import read_attestation
from runtime.bundle.dsse import seal
from runtime.bundle.manifest import MANIFEST, Manifest
from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import fingerprint, load_private_key, load_trust
from runtime.errors import BadInput, EdgeproofError
from runtime.external.process import JudgeProcess
from runtime.external.protocol import LENGTH, PROTOCOL, decode, most_bytes, read_handshake
from runtime.files import sha256
from runtime.report import cyclonedx
from runtime.report.account import read_account
from runtime.spec import Gate, first_fault, parse_fraction
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import write_bundle
from tests.runtime.mutation import BYTES, TEXT, explore
from tests.tiny import bundle_files, linear_task

ROWS, CLASSES = 4, 3
BOTH = (*TEXT, *BYTES)
ECHO = ("tail", "--bytes=+9")
"""Answers with what it is asked, but for the eight bytes of its length: so that a whole frame can be edited."""
PATIENCE = 0.2
POLICY = """\
keys = "judge/public.pem"
robust_accuracy = "1%"
eps = 0.01
largest_eps = "8/255"
attacks = ["fgsm", "pgd", "cw"]
images = 50
max_age_days = 36500
backends = ["ort"]
"""


def handshakes(place, count):
    """What a judge says of itself."""
    said = {"protocol": PROTOCOL, "name": "a", "version": "1", "images": "uint8", "batch": 8, "seconds": 2.5}

    def check(name, data):
        found = read_handshake(data)
        assert found.protocol == PROTOCOL
        assert found.images in ("float32", "uint8")
        assert 0 < found.batch <= 4096
        assert 0 < found.seconds <= 3600

    return explore({"handshake": json.dumps(said).encode()}, check, count, BOTH)


def _answers():
    file = io.BytesIO()
    np.save(file, np.ones((ROWS, CLASSES), np.float32))
    refusals = {kind: json.dumps({"error": kind, "message": "x"}).encode() for kind in ("memory", "failed")}
    return {"logits": file.getvalue(), **refusals}


def _check_logits(z):
    assert (z.shape, z.dtype) == ((ROWS, CLASSES), np.float32)


def answers(place, count):
    """What a judge answers: logits, and refusals."""
    return explore(_answers(), lambda name, data: _check_logits(decode(data, ROWS, CLASSES)), count, BOTH)


def frames(place, count):
    """Whole frames, their lengths too, written by a process."""
    framed = {name: LENGTH.pack(len(answer)) + answer for name, answer in _answers().items()}

    def check(name, data):
        process = JudgeProcess(ECHO)
        try:
            answer = process.exchange(data, most_bytes(ROWS, CLASSES), PATIENCE)
        finally:
            process.close()
        assert data[: LENGTH.size + len(answer)] == LENGTH.pack(len(answer)) + answer
        _check_logits(decode(answer, ROWS, CLASSES))

    return explore(framed, check, count, BYTES)


class Judged:
    """A bundle that was judged, and its attestation, of the judge's key and of a stranger's; made in `place`."""

    def __init__(self, place):
        self.place, self.run = place, place / "run"
        if not place.exists():
            place.mkdir(parents=True)
            write_bundle(place / "bundle", bundle_files(linear_task()), n=60, gate=Gate(fail_under=0.01))
            self._do("key", "new", "--out", place / "judge")
            self._do("verify", place / "bundle", "--attest", place / "judge/private.pem", "--out", self.run)
        self.bundle = open_bundle(place / "bundle")
        self.key, self.trust = load_private_key(place / "judge/private.pem"), load_trust(place / "judge/public.pem")
        self.whole = (self.run / "attestation.json").read_bytes()
        self.attestation = read_attestation(self.run / "attestation.json", self.trust)
        self.payload = json.dumps(_payload(self.whole)).encode()
        self.policy = place / "policy.toml"
        self.policy.write_text(POLICY)

    def _do(self, *words):
        result = edgeproof(*words)
        assert result.exit_code == 0, result.stderr

    def sealed(self, payload, key=None):
        """Return an attestation, which names the judge's key whoever signs it."""
        return json.dumps(seal(payload, key or self.key, fingerprint(self.key.public_key()))).encode()

    def forged(self):
        """Return attestations that no policy may accept: a stranger's, of a failure, of another bundle."""
        failed, other = json.loads(self.payload), json.loads(self.payload)
        failed["predicate"]["result"] = "FAILED"
        other["subject"][0]["digest"]["sha256"] = "0" * 64
        stranger = ec.generate_private_key(ec.SECP256R1())
        return (
            self.sealed(self.payload, stranger),
            self.sealed(json.dumps(failed).encode()),
            self.sealed(json.dumps(other).encode()),
        )

    def put(self, data):
        """Write what is to be read as the attestation, and return its path."""
        path = self.place / "read.json"
        path.write_bytes(data)
        return path


def _payload(envelope):
    import base64

    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


def envelopes(place, count):
    """An attestation, and one of a stranger's that names the judge's key: only what the judge said is read."""
    judged = Judged(place / "judged")
    seeds = {"the judge's": judged.whole, "a stranger's": judged.forged()[0]}

    def check(name, data):
        found = read_attestation(judged.put(data), judged.trust)
        assert found == judged.attestation
        assert name == "the judge's"

    return explore(seeds, check, count, BOTH)


def statements(place, count):
    """What the judge's own key signs: taken only if it is of this bundle, and meets the policy by what it says."""
    judged = Judged(place / "judged")
    manifest = sha256(judged.bundle.read(MANIFEST))

    def check(name, data):
        found = require(judged.put(judged.sealed(data)), judged.policy, judged.bundle)
        _check_meets(found, tomllib.loads(POLICY))
        said = json.loads(data)
        assert manifest in [subject["digest"]["sha256"] for subject in said["subject"]]
        assert said["predicate"]["result"] in ("PASSED", "WARNED")

    return explore({"statement": judged.payload}, check, count, BOTH)


def _check_meets(attestation, policy):
    """Hold what an attestation says to a policy as it is written, in few words."""
    figures = attestation.figures
    assert attestation.result != "FAILED"
    assert figures.verdict == "passed"
    assert figures.low - figures.may_hide >= parse_fraction(policy["robust_accuracy"]) > 0
    assert parse_fraction(policy.get("largest_eps", 1)) >= figures.threat_model.eps >= parse_fraction(policy["eps"]) > 0
    assert set(policy["attacks"]) <= {row.name for row in figures.attacks if row.attacked >= figures.correct}
    assert policy["attacks"]
    assert figures.data.n >= policy.get("images", 1)
    assert figures.backend in policy.get("backends", [figures.backend])


def policies(place, count):
    """A policy: it lets no forged attestation pass, and what it lets pass meets it as it is written."""
    judged = Judged(place / "judged")
    forged = judged.forged()

    def check(name, data):
        judged.policy.write_bytes(data)
        try:
            for each in forged:
                with suppress(EdgeproofError):
                    require(judged.put(each), judged.policy, judged.bundle)
                    raise AssertionError("a forged attestation is accepted")
            _check_meets(require(judged.put(judged.whole), judged.policy, judged.bundle), tomllib.loads(data.decode()))
        finally:
            judged.policy.write_text(POLICY)

    return explore({"policy": POLICY.encode()}, check, count, TEXT)


def bills(place, count):
    """report.json and the manifest that a bill of materials is made of: it is valid CycloneDX 1.7, or refused."""
    from dataclasses import replace

    from pydantic import ValidationError

    judged = Judged(place / "judged")
    report = judged.run / "report.json"
    whole, manifest = report.read_bytes(), judged.bundle.read(MANIFEST)
    valid = JsonStrictValidator(SchemaVersion.V1_7)

    def check(name, data):
        report.write_bytes(data if name == "report" else whole)
        try:
            account = read_account(judged.run)
            of_it = Manifest.model_validate_json(data if name == "manifest" else manifest)
        except ValidationError as error:  # as `open_bundle` says it
            raise BadInput(first_fault(error)) from None
        finally:
            report.write_bytes(whole)
        assert valid.validate_str(cyclonedx.render(replace(account, manifest=of_it))) is None

    return explore({"report": whole, "manifest": manifest}, check, count, TEXT)


KINDS = {
    "handshake of a judge": handshakes,
    "answer of a judge": answers,
    "frame of a judge's process": frames,
    "envelope of an attestation": envelopes,
    "statement, signed by the judge": statements,
    "policy": policies,
    "report and manifest of a bill of materials": bills,
}
SLOW = {"frame of a judge's process": 10}
"""Each a process of its own: a tenth of the mutations."""
