"""signature.json: no change of it goes unseen, and each way in which it is malformed is told."""

import base64
import json

import pytest

from runtime.bundle.opening import open_bundle
from runtime.bundle.signing import authenticate
from runtime.errors import BadBundle, BadSignature


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
