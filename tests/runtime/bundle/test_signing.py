"""Signatures: whose is trusted, and what it must have signed."""

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import Trust, fingerprint, load_trust, sign
from runtime.errors import BadBundle, BadSignature
from tests.runtime.bundle.bundles import pem, sign_bundle, write_bundle


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
    with pytest.raises(BadSignature, match="was made with another key"):
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


def test_a_trust_of_no_key_trusts_nothing(signed, tmp_path):
    with pytest.raises(BadSignature, match="was made with another key"):
        open_bundle(signed, Trust(tmp_path / "none.pem", {}))


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


@pytest.mark.parametrize("digests", [{}, {"manifest.json": "0" * 64}])
def test_a_signed_statement_about_something_else_is_refused(signed, trust, key, digests):
    (signed / "signature.json").write_bytes(sign("tiny", digests, key))
    with pytest.raises(BadSignature, match="is not the one that was signed"):
        open_bundle(signed, trust)
