"""Signatures: what is trusted, and each way in which a bundle is not."""

import base64
import json
import os
import shutil
import stat
import subprocess
import venv

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import Trust, authenticate, fingerprint, load_private_key, load_trust, new_key, sign
from runtime.errors import BadBundle, BadInput, BadSignature, UsageFault
from tests.runtime.bundle.bundles import sign_bundle, write_bundle


def pem(key):
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_a_signed_bundle_opens_under_trust_and_says_whose_it_is(signed, trust, key):
    assert open_bundle(signed, trust).signed_by == fingerprint(key.public_key())


def test_without_trust_a_signature_is_not_asked_for_nor_believed(bundle, signed):
    assert open_bundle(signed).signed_by is None
    (signed / "signature.json").write_text("nonsense")
    assert open_bundle(signed).signed_by is None


def test_an_unsigned_bundle_is_refused_under_trust(bundle, trust):
    with pytest.raises(BadSignature, match=r"is not signed: it has no signature\.json"):
        open_bundle(bundle, trust)


def test_a_bundle_signed_with_another_key_is_refused(bundle, trust):
    sign_bundle(bundle, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(BadSignature, match="is of another key"):
        open_bundle(bundle, trust)


def test_a_signature_that_names_the_trusted_key_but_is_of_another_is_refused(bundle, trust, key):
    stranger = ec.generate_private_key(ec.SECP256R1())
    path = sign_bundle(bundle, stranger) / "signature.json"
    theirs, ours = (fingerprint(one.public_key()) for one in (stranger, key))
    path.write_text(path.read_text().replace(theirs, ours))
    with pytest.raises(BadSignature, match="the signature does not hold"):
        open_bundle(bundle, trust)


def test_one_of_several_trusted_keys_suffices(signed, trust, key, tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "both.pem").write_bytes(pem(other.public_key()) + pem(key.public_key()))
    assert open_bundle(signed, load_trust(tmp_path / "both.pem")).signed_by == fingerprint(key.public_key())


def change_model(bundle):
    path = bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes().replace(b"logits", b"logitz"))


def change_size(bundle):
    path = bundle / "evaluation.npz"
    path.write_bytes(path.read_bytes() + b"?")


def drop(bundle):
    (bundle / "evaluation.npz").unlink()


def add(bundle):
    (bundle / "more.bin").write_bytes(b"?")


def swap(bundle):
    forward, gradient = bundle / "model.fp32.onnx", bundle / "model.fp32.grad.onnx"
    forward.rename(bundle / "third")
    gradient.rename(forward)
    (bundle / "third").rename(gradient)


def link(bundle):
    path = bundle / "evaluation.npz"
    path.rename(bundle.parent / "outside.npz")
    path.symlink_to(bundle.parent / "outside.npz")


def link_manifest(bundle):
    path = bundle / "manifest.json"
    path.rename(bundle.parent / "outside.json")
    path.symlink_to(bundle.parent / "outside.json")


def loop(bundle):
    (bundle / "evaluation.npz").unlink()
    (bundle / "evaluation.npz").symlink_to("evaluation.npz")


def directory(bundle):
    (bundle / "evaluation.npz").unlink()
    (bundle / "evaluation.npz").mkdir()


def pipe(bundle):
    (bundle / "evaluation.npz").unlink()
    os.mkfifo(bundle / "evaluation.npz")


def pipe_for_manifest(bundle):
    (bundle / "manifest.json").unlink()
    os.mkfifo(bundle / "manifest.json")


def endless_manifest(bundle):
    os.truncate(bundle / "manifest.json", 2**40)


def name_that_is_no_text(bundle):
    os.close(os.open(os.fsencode(bundle) + b"/\xff", os.O_CREAT))


TAMPERED = {
    "an edited file": (change_model, r"model\.fp32\.onnx: its digest differs"),
    "a wrong size": (change_size, r"evaluation\.npz has \d+ bytes"),
    "a missing file": (drop, r"evaluation\.npz is listed in the manifest but missing"),
    "an added file": (add, r"more\.bin is not listed"),
    "swapped files": (swap, r"holds what belongs in model\.fp32\.onnx: files were swapped"),
    "a link": (link, r"evaluation\.npz is a link"),
    "a linked manifest": (link_manifest, r"manifest\.json is a link"),
    "a link to itself": (loop, r"evaluation\.npz is a link"),
    "a directory for a file": (directory, r"evaluation\.npz is not a plain file"),
    "a pipe for a file": (pipe, r"evaluation\.npz is not a plain file"),
    "a pipe for the manifest": (pipe_for_manifest, r"manifest\.json is not a plain file"),
    "a manifest without end": (endless_manifest, r"manifest\.json has 1099511627776 bytes, more than"),
    "a name that is no text": (name_that_is_no_text, "is not listed"),
}


@pytest.mark.parametrize("trusting", [True, False], ids=["trust", "digests alone"])
@pytest.mark.parametrize(("tamper", "message"), TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_bundle_is_refused_and_told_why(signed, trust, tamper, message, trusting):
    tamper(signed)
    with pytest.raises(BadBundle, match=message) as caught:
        open_bundle(signed, trust if trusting else None)
    assert caught.value.exit_code == 3
    assert caught.value.hint


PATHS = {
    "/etc/passwd": "is an absolute path",
    "\\\\host\\share": "is an absolute path",
    "../model.onnx": "climbs out of the bundle",
    "a/../../b": "climbs out of the bundle",
    "..": "climbs out of the bundle",
    "a/b": "is not a plain file name",
    ".hidden": "is not a plain file name",
    "a\nb": "is not a plain file name",
    "": "is not a plain file name",
    "manifest.json": "cannot list itself",
    "signature.json": "cannot list itself",
}


@pytest.mark.parametrize(("name", "message"), PATHS.items(), ids=range(len(PATHS)))
@pytest.mark.parametrize("where", ["files", "graphs"])
def test_a_path_that_leaves_the_bundle_is_refused(bundle, rewrite, name, message, where):
    entry = {"sha256": "0" * 64, "size": 1}
    keys = ("files", name) if where == "files" else ("graphs", "fp32", "forward")
    rewrite(bundle, *keys, value=entry if where == "files" else name)
    with pytest.raises(BadBundle, match=message):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../../etc", "a b", "-rf", "", "a\n", "x" * 101])
def test_a_model_is_called_what_can_be_a_file_name(bundle, rewrite, name):
    rewrite(bundle, "name", value=name)
    with pytest.raises(BadBundle, match=r"manifest\.json: name"):
        open_bundle(bundle)


@pytest.mark.parametrize("schema", ["edgeproof.bundle/2", None, 1])
def test_an_unknown_schema_is_named_before_any_other_fault(bundle, rewrite, schema):
    rewrite(bundle, "files", value=7)
    rewrite(bundle, "schema", value=schema)
    with pytest.raises(BadBundle, match=r"manifest\.json: schema: "):
        open_bundle(bundle)


def test_a_manifest_without_a_schema_is_refused(bundle):
    record = json.loads((bundle / "manifest.json").read_text())
    del record["schema"]
    (bundle / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(BadBundle, match="schema: it names none"):
        open_bundle(bundle)


def test_a_manifest_of_another_bundle_is_not_the_one_that_was_signed(signed, trust, files, tmp_path):
    other = write_bundle(tmp_path / "other", files, n=60, version=2)
    shutil.copy(other / "manifest.json", signed / "manifest.json")
    assert open_bundle(signed).manifest.version == 2
    with pytest.raises(BadSignature, match=r"manifest\.json is not the one that was signed"):
        open_bundle(signed, trust)


def test_manifest_and_signature_of_another_bundle_do_not_fit_these_files(signed, trust, files, key, tmp_path):
    changed = files | {"model.fp32.onnx": files["model.fp32.onnx"].replace(b"logits", b"logitz")}
    other = sign_bundle(write_bundle(tmp_path / "other", changed, n=60), key)
    for name in ("manifest.json", "signature.json"):
        shutil.copy(other / name, signed / name)
    with pytest.raises(BadBundle, match="its digest differs"):
        open_bundle(signed, trust)


def test_a_signature_over_other_files_than_the_manifest_lists_is_refused(bundle, trust, key):
    (bundle / "more.bin").write_bytes(b"?")
    sign_bundle(bundle, key)
    (bundle / "more.bin").unlink()
    with pytest.raises(BadSignature, match="signature and manifest list different files"):
        open_bundle(bundle, trust)


def test_any_single_changed_character_of_a_signature_is_refused_or_changes_nothing(signed, trust):
    """What is not signed (layout, an ignored key id) may change; what is said may not."""
    path = signed / "signature.json"
    whole = path.read_bytes()
    said, harmless = authenticate(path, whole, trust), 0
    for place in range(len(whole)):
        try:
            changed = authenticate(path, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], trust)
        except BadSignature:
            continue
        harmless += 1
        assert changed == said
    assert harmless < len(whole) / 10


def cut(text):
    return text[: len(text) // 2]


def edited(change):
    def apply(text):
        record = json.loads(text)
        change(record)
        return json.dumps(record)

    return apply


def other_payload(record):
    envelope = record["dsseEnvelope"]
    envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]) + b" ").decode()


def no_base64(record):
    record["dsseEnvelope"]["payload"] += "*"


def signature_of_nothing(record):
    record["dsseEnvelope"]["signatures"][0]["sig"] = ""


def two_signatures(record):
    record["dsseEnvelope"]["signatures"] *= 2


def no_signatures(record):
    record["dsseEnvelope"]["signatures"] = []


MALFORMED = {
    "empty": (lambda _: "", "is empty"),
    "blank": (lambda _: " \n", "is empty"),
    "truncated": (cut, "is no signature: document: Invalid JSON"),
    "a list": (lambda _: "[]", "is no signature"),
    "too deep": (lambda _: "[" * 100_000, "is no signature"),
    "no object": (lambda _: "{}", "is no signature: mediaType"),
    "other media type": (edited(lambda r: r.update(mediaType="x")), "is no signature: mediaType"),
    "other payload type": (edited(lambda r: r["dsseEnvelope"].update(payloadType="x")), "payloadType"),
    "no key": (edited(lambda r: r.pop("verificationMaterial")), "is no signature: verificationMaterial"),
    "other payload": (edited(other_payload), "does not hold"),
    "no base64": (edited(no_base64), "not base64"),
    "signature of nothing": (edited(signature_of_nothing), "does not hold"),
    "two signatures": (edited(two_signatures), "signatures"),
    "no signatures": (edited(no_signatures), "signatures"),
}


@pytest.mark.parametrize(("change", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_signature_is_refused_and_told_why(signed, trust, change, message):
    path = signed / "signature.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(BadSignature, match=message) as caught:
        open_bundle(signed, trust)
    assert caught.value.hint


def test_a_signature_that_is_a_link_is_refused(signed, trust):
    path = signed / "signature.json"
    path.rename(signed.parent / "outside.json")
    path.symlink_to(signed.parent / "outside.json")
    with pytest.raises(BadBundle, match=r"signature\.json is a link"):
        open_bundle(signed, trust)


@pytest.mark.parametrize("digests", [{}, {"manifest.json": "0" * 64}])
def test_a_signed_statement_about_something_else_is_refused(signed, trust, key, digests):
    (signed / "signature.json").write_bytes(sign("tiny", digests, key))
    with pytest.raises(BadSignature, match="is not the one that was signed"):
        open_bundle(signed, trust)


def test_new_keys_are_a_pair_and_the_private_one_is_its_owners_alone(tmp_path):
    made = new_key(tmp_path / "keys")
    private, trusted = load_private_key(tmp_path / "keys/private.pem"), load_trust(tmp_path / "keys/public.pem")
    assert made == fingerprint(private.public_key()) == next(iter(trusted.keys))
    assert stat.S_IMODE((tmp_path / "keys/private.pem").stat().st_mode) == 0o600
    with pytest.raises(UsageFault):
        new_key(tmp_path / "keys")


BAD_PRIVATE = {
    "nothing": (b"", "holds no private key"),
    "text": (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
    "public": (pem(ec.generate_private_key(ec.SECP256R1()).public_key()), "holds no private key"),
    "another curve": (private_pem(ec.generate_private_key(ec.SECP384R1())), "not on the curve P-256"),
    "another kind": (private_pem(ed25519.Ed25519PrivateKey.generate()), "not on the curve P-256"),
    "encrypted": (
        private_pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret")),
        "is encrypted",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_PRIVATE.values(), ids=BAD_PRIVATE)
def test_a_private_key_that_cannot_sign_is_refused(tmp_path, content, message):
    (tmp_path / "private.pem").write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_private_key(tmp_path / "private.pem")
    assert caught.value.hint


BAD_PUBLIC = {
    "nothing": (b"", "holds no public key"),
    "private": (private_pem(ec.generate_private_key(ec.SECP256R1())), "holds no public key"),
    "damaged": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is damaged"),
    "another curve": (pem(ec.generate_private_key(ec.SECP384R1()).public_key()), "not on the curve P-256"),
    "another kind": (pem(ed25519.Ed25519PrivateKey.generate().public_key()), "not on the curve P-256"),
}


@pytest.mark.parametrize(("content", "message"), BAD_PUBLIC.values(), ids=BAD_PUBLIC)
def test_a_public_key_that_cannot_be_trusted_is_refused(tmp_path, content, message):
    (tmp_path / "public.pem").write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        load_trust(tmp_path / "public.pem")
    assert caught.value.hint


@pytest.fixture(scope="module")
def model_signing(tmp_path_factory):
    """Return the tool, in an environment of its own: it and torchattacks cannot agree on urllib3."""
    place = tmp_path_factory.mktemp("model-signing")
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"  # pyopenssl: it imports that without asking for it
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
    change_model(bundle)
    assert model_signing(*command).returncode == 1


@pytest.mark.slow
@pytest.mark.check
def test_a_bundle_signed_by_openssf_model_signing_is_trusted(bundle, keys, model_signing):
    signature = ("--signature", bundle / "signature.json", "--private_key", keys / "private.pem")
    result = model_signing("sign", "key", bundle, *signature)
    assert result.returncode == 0, result.stderr
    trust = load_trust(keys / "public.pem")
    assert open_bundle(bundle, trust).signed_by == next(iter(trust.keys))
    add(bundle)
    with pytest.raises(BadBundle, match="is not listed"):
        open_bundle(bundle, trust)


def test_a_trust_of_no_key_trusts_nothing(signed, tmp_path):
    with pytest.raises(BadSignature, match="is of another key"):
        open_bundle(signed, Trust(tmp_path / "none.pem", {}))
