"""sign: a bundle that is there is signed in place, if every byte is what its manifest or its signature says."""

import json
import shutil
import stat
from pathlib import Path

import pytest

from runtime.bundle.manifest import Reference
from runtime.bundle.model_card import MODEL_CARD, model_card
from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import load_private_key, load_trust
from runtime.files import sha256
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import add_a_file, change_a_graph, sign_bundle, write_bundle


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs, ours and theirs."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        assert edgeproof("key", "new", "--out", place / name).exit_code == 0
    return place


def sign(bundle, keys, whose="ours", *options):
    return edgeproof("sign", bundle, "--key", keys / whose / "private.pem", *options)


def trusting(keys, whose="ours"):
    return "--trust", keys / whose / "public.pem"


def snapshot(bundle):
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def test_a_signed_bundle_is_opened_under_trust_and_no_other_file_of_it_changed(bundle, keys):
    before = snapshot(bundle)
    assert edgeproof("inspect", bundle, *trusting(keys)).exit_code == 3
    result = sign(bundle, keys)
    assert result.exit_code == 0, result.stderr
    (fingerprint,) = load_trust(keys / "ours" / "public.pem").keys
    assert result.stdout.splitlines() == [
        f"tiny version 1, made {open_bundle(bundle).manifest.created}",
        "threat model: linf, eps 0.01",
        "gate: none",
        "evaluation: 60 images of tiny/test",
        f"bundle: {bundle}, signed with key {fingerprint}",
    ]
    after = snapshot(bundle)
    assert after.pop("signature.json")
    assert after == before
    assert f"authenticated: signed with key {fingerprint}" in edgeproof("inspect", bundle, *trusting(keys)).stdout
    assert edgeproof("inspect", bundle, *trusting(keys, "theirs")).exit_code == 3


def test_a_device_takes_the_bundle_that_it_accepted_unsigned_and_still_none_that_is_older(
    bundle, keys, rewrite, tmp_path
):
    older = shutil.copytree(bundle, tmp_path / "older")
    rewrite(bundle, "version", value=2)
    state = ("--state", tmp_path / "state")
    assert edgeproof("install", bundle, "--to", tmp_path / "device", *state).exit_code == 0
    assert sign(bundle, keys).exit_code == 0
    assert edgeproof("install", bundle, "--to", tmp_path / "device", *state, *trusting(keys)).exit_code == 0
    accepted = json.loads((tmp_path / "state/accepted.json").read_text())["accepted"]["tiny"]
    assert (accepted["version"], accepted["authenticated"]) == (2, True)
    assert sign(older, keys).exit_code == 0
    result = edgeproof("install", older, "--to", tmp_path / "device", *state, *trusting(keys))
    assert (result.exit_code, "version 2 was accepted here" in result.stderr) == (3, True)


def edit_the_manifest(bundle):
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))


def pass_off(bundle):
    """Change a graph, and let the manifest say so: whole, and not what was signed."""
    change_a_graph(bundle)
    record = json.loads((bundle / "manifest.json").read_text())
    record["files"]["model.fp32.onnx"]["sha256"] = sha256((bundle / "model.fp32.onnx").read_bytes())
    (bundle / "manifest.json").write_text(json.dumps(record))


UNSIGNED = {
    "a graph was changed": (change_a_graph, "model.fp32.onnx: its digest differs"),
    "a file was added": (add_a_file, "more.bin is not listed"),
    "a file is missing": (lambda bundle: (bundle / "evaluation.npz").unlink(), "listed in the manifest but missing"),
    "there is no manifest": (lambda bundle: (bundle / "manifest.json").unlink(), "is not a bundle"),
}


@pytest.mark.parametrize(("damage", "message"), UNSIGNED.values(), ids=UNSIGNED)
def test_a_bundle_that_is_not_whole_is_not_signed(bundle, keys, damage, message):
    damage(bundle)
    before = snapshot(bundle)
    result = sign(bundle, keys)
    assert (result.exit_code, message in result.stderr, "hint: " in result.stderr) == (3, True, True)
    assert snapshot(bundle) == before


@pytest.fixture
def with_card(files, tmp_path):
    """Return a function that writes a bundle with its card, which it may edit first."""

    def write(edit=lambda card: card):
        reached = {"reference": Reference(checkpoint="best", n=60, clean=0.81, pgd=0.47)}
        plain = write_bundle(tmp_path / "plain", files, n=60, **reached)
        card = edit(model_card(open_bundle(plain).manifest)).encode()
        return write_bundle(tmp_path / "carded", files | {MODEL_CARD: card}, n=60, **reached)

    return write


def test_a_bundle_whose_card_is_its_manifest_in_words_is_signed(with_card, keys):
    bundle = with_card()
    assert "47.0 %" in (bundle / MODEL_CARD).read_text()
    assert sign(bundle, keys).exit_code == 0


EDITS = {
    "a figure": lambda card: card.replace("47.0 %", "74.0 %"),
    "its metadata": lambda card: card.replace('"value": 0.47', '"value": 0.74'),
    "a line more": lambda card: card + "Robust to everything.\n",
    "a line less": lambda card: card.rpartition("\n|")[0],
    "line ends": lambda card: card.replace("\n", "\r\n"),
    "nothing left": lambda card: "",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_card_that_is_not_its_manifest_in_words_is_not_signed(with_card, keys, edit):
    bundle = with_card(edit)
    assert edgeproof("inspect", bundle).exit_code == 0
    before = snapshot(bundle)
    result = sign(bundle, keys)
    assert result.exit_code == 3
    assert f"{bundle / MODEL_CARD} is not what this manifest says in words" in result.stderr
    assert "--key" in result.stderr
    assert snapshot(bundle) == before


def test_the_line_in_which_a_card_departs_from_its_manifest_is_named(with_card, keys):
    bundle = with_card(EDITS["a figure"])
    line = next(at for at, text in enumerate((bundle / MODEL_CARD).read_text().split("\n"), 1) if "74.0 %" in text)
    assert f"from line {line} on" in sign(bundle, keys).stderr


def test_a_file_is_no_bundle_and_a_key_is_needed(bundle, keys, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"?")
    assert (sign(tmp_path / "model.onnx", keys).exit_code, edgeproof("sign", bundle).exit_code) == (3, 2)
    assert sign(tmp_path / "none", keys).exit_code == 2
    assert "holds no private key" in edgeproof("sign", bundle, "--key", keys / "ours/public.pem").stderr
    assert not (bundle / "signature.json").exists()


def test_to_sign_again_with_the_same_key_is_done_already(bundle, keys):
    assert sign(bundle, keys).exit_code == 0
    before = snapshot(bundle)
    result = sign(bundle, keys)
    assert (result.exit_code, "is signed with this key already" in result.stderr) == (0, True)
    assert snapshot(bundle) == before


def test_another_key_takes_the_place_of_one_whose_signature_was_checked(bundle, keys):
    assert sign(bundle, keys, "theirs").exit_code == 0
    before = snapshot(bundle)
    for options in ((), trusting(keys)):
        result = sign(bundle, keys, "ours", *options)
        assert (result.exit_code, "another key" in result.stderr, "hint: " in result.stderr) == (3, True, True)
        assert snapshot(bundle) == before
    assert sign(bundle, keys, "ours", *trusting(keys, "theirs")).exit_code == 0
    assert open_bundle(bundle, load_trust(keys / "ours" / "public.pem")).signed_by
    assert edgeproof("inspect", bundle, *trusting(keys, "theirs")).exit_code == 3


def test_a_bundle_that_is_to_be_signed_already_has_to_be(bundle, keys):
    result = sign(bundle, keys, "ours", *trusting(keys, "theirs"))
    assert (result.exit_code, "is not signed" in result.stderr) == (3, True)


@pytest.mark.parametrize("change", [edit_the_manifest, pass_off])
@pytest.mark.parametrize("signer", ["ours", "theirs"])
def test_what_was_changed_since_it_was_signed_is_not_signed(bundle, keys, change, signer):
    sign_bundle(bundle, load_private_key(keys / signer / "private.pem"))
    change(bundle)
    assert edgeproof("inspect", bundle).exit_code == 0
    before = snapshot(bundle)
    for options in ((), trusting(keys, signer)):
        assert sign(bundle, keys, "ours", *options).exit_code == 3
        assert snapshot(bundle) == before


def test_what_a_power_cut_left_of_a_signature_is_no_part_of_the_bundle(bundle, keys):
    (bundle / ".signature.json.0f0f0f0f").write_text("{")
    assert edgeproof("inspect", bundle).exit_code == 3
    assert sign(bundle, keys).exit_code == 0
    assert edgeproof("inspect", bundle, *trusting(keys)).exit_code == 0


def test_a_signature_that_cannot_be_written_leaves_the_bundle_as_it_was(bundle, keys, monkeypatch):
    before = snapshot(bundle)

    def full(self, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    assert sign(bundle, keys).exit_code == 4
    assert snapshot(bundle) == before


def test_devices_can_read_the_signature(bundle, keys):
    assert sign(bundle, keys).exit_code == 0
    assert stat.S_IMODE((bundle / "signature.json").stat().st_mode) & 0o044 == 0o044
