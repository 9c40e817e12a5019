"""sigstore reads and verifies our DSSE envelopes; in an environment of its own, which brings some thirty packages."""

import subprocess
import venv

import pytest

READ = """
import json, sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sigstore.dsse import Envelope, Statement, _verify
envelope = Envelope._from_json(Path(sys.argv[1]).read_bytes())
payload = _verify(load_pem_public_key(Path(sys.argv[2]).read_bytes()), envelope)
Statement(payload)
print(json.loads(payload)["predicate"]["result"])
"""


@pytest.mark.slow
def test_sigstore_reads_and_verifies_our_envelope_and_refuses_an_edited_one(case, tmp_path):
    environment = tmp_path / "sigstore"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "sigstore>=4,<5"], check=True, timeout=400)

    def read():
        command = [python, "-c", READ, case.attestation, case.place / "judge.pem"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    result = read()
    assert (result.returncode, result.stdout.strip()) == (0, case.statement()["predicate"]["result"]), result.stderr
    case.envelope(lambda envelope: envelope.update(payload=envelope["payload"][:-8] + "AAAAAAA="))
    assert read().returncode == 1
