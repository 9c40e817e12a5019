"""Our signatures and those of OpenSSF's model-signing, each verified by the other."""

import subprocess
import venv

import pytest

from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import load_private_key, load_trust, new_key
from runtime.errors import BadBundle
from tests.runtime.bundle.bundles import add_a_file, change_a_graph, sign_bundle


@pytest.fixture(scope="module")
def model_signing(tmp_path_factory):
    """Return the tool, in an environment of its own."""
    environment = tmp_path_factory.mktemp("model-signing")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"  # pyopenssl: it imports that without asking for it
    install = [python, "-m", "pip", "install", "--quiet", "model-signing>=1.1,<2", "pyopenssl>=24"]
    subprocess.run(install, check=True, timeout=400)

    def run(*arguments):
        command = [python, "-W", "ignore", "-m", "model_signing", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.fixture
def keys(tmp_path):
    new_key(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.mark.slow
@pytest.mark.check
def test_openssf_model_signing_verifies_our_signature_and_refuses_what_we_refuse(bundle, keys, model_signing):
    sign_bundle(bundle, load_private_key(keys / "private.pem"))
    command = ("verify", "key", bundle, "--signature", bundle / "signature.json", "--public_key", keys / "public.pem")
    result = model_signing(*command)
    assert (result.returncode, result.stdout.strip()) == (0, "Verification succeeded"), result.stderr
    change_a_graph(bundle)
    assert model_signing(*command).returncode == 1


@pytest.mark.slow
@pytest.mark.check
def test_a_bundle_signed_by_openssf_model_signing_is_trusted(bundle, keys, model_signing):
    signature = ("--signature", bundle / "signature.json", "--private_key", keys / "private.pem")
    result = model_signing("sign", "key", bundle, *signature)
    assert result.returncode == 0, result.stderr
    trust = load_trust(keys / "public.pem")
    assert open_bundle(bundle, trust).signed_by == next(iter(trust.keys))
    add_a_file(bundle)
    with pytest.raises(BadBundle, match="is not listed"):
        open_bundle(bundle, trust)
