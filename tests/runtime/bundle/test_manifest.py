"""manifest.json: the names and the schema that it may hold."""

import json

import pytest

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


def test_a_manifest_without_a_schema_is_refused(bundle):
    record = json.loads((bundle / "manifest.json").read_text())
    del record["schema"]
    (bundle / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(BadBundle, match="schema: it names none"):
        open_bundle(bundle)
