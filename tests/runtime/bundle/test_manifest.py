"""manifest.json: the names and the schema that it may hold."""

import json

import pytest

from runtime.bundle.manifest import Manifest
from runtime.bundle.opening import open_bundle
from runtime.errors import BadBundle

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


@pytest.mark.parametrize("key", ["fail_\x7funder", "\x1b[31m", "a\nb"])
def test_a_key_that_acts_on_a_terminal_is_named_as_no_more_than_text(bundle, rewrite, key):
    rewrite(bundle, "gate", key, value=1)
    with pytest.raises(BadBundle, match=r"no such key$") as refused:
        open_bundle(bundle)
    assert refused.value.message.isprintable()


def test_a_missing_key_is_said_to_be_missing(bundle):
    record = json.loads((bundle / "manifest.json").read_text())
    del record["input"]["height"]
    (bundle / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(BadBundle, match=r"manifest\.json: input\.height: is missing$"):
        open_bundle(bundle)


def test_a_manifest_without_a_schema_is_refused(bundle):
    record = json.loads((bundle / "manifest.json").read_text())
    del record["schema"]
    (bundle / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(BadBundle, match="schema: it names none"):
        open_bundle(bundle)


FIRST = {
    "": "classes created evaluation files gate graphs input name packed provenance reference schema ships threat_model "
    "version",
    "gate": "fail_under max_drop",
    "graphs.fp32": "calibration forward gradient opset parity",
    "provenance": "checkpoint_sha256 recipe recipe_sha256 software teacher_sha256 training_data",
}
"""The keys that version 0.1.0 wrote and knew, by table; it refuses others."""
LATER = {
    "preprocessing": ("", {"resize": [64, 64], "crop": [64, 64], "interpolation": "bilinear"}),
    "staircases": ("graphs.fp32", ["Round /act/Round"]),
    "start_sha256": ("provenance", "0" * 64),
    "extra_data": ("provenance", {"name": "generated", "n": 1, "sha256": "0" * 64}),
}
"""What later versions added: the table, and a value that says something."""


def table(record, path):
    for key in filter(None, path.split(".")):
        record = record[key]
    return record


@pytest.fixture
def written(bundle):
    """Return the record of a manifest with provenance and a calibrated graph."""
    record = json.loads((bundle / "manifest.json").read_text())
    images, digest = {"name": "train", "n": 1, "sha256": "0" * 64}, "0" * 64
    record["provenance"] = {"recipe": {}, "software": {}, "training_data": images, "teacher_sha256": digest} | {
        f"{what}_sha256": digest for what in ("recipe", "checkpoint")
    }
    return record


def test_a_manifest_without_new_features_has_the_keys_that_its_first_readers_know(written):
    again = json.loads(Manifest.model_validate(written).to_json())
    assert {path: set(table(again, path)) for path in FIRST} == {
        path: set(keys.split()) for path, keys in FIRST.items()
    }


@pytest.mark.parametrize("key", LATER)
def test_what_a_later_version_added_is_written_where_it_says_something(written, key):
    path, value = LATER[key]
    table(written, path)[key] = value
    again = json.loads(Manifest.model_validate(written).to_json())
    assert table(again, path)[key] == value
    assert {path: set(table(again, path)) - {key} for path in FIRST} == {
        path: set(keys.split()) for path, keys in FIRST.items()
    }
