"""Bundles to the Hub and back: by digest, at one commit, and what is refused on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from runtime.hub.place import HubPlace
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import pem, sign_bundle
from tests.runtime.hub.stand_in import TOKEN, Hub, serve

# huggingface_hub 2.4 hands its own transport what that no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PLACE = "hf://people/tiny"
FAST = ("--attacks", "fgsm", "--n", "20", "--no-gate")


def use(monkeypatch, address):
    """Set what huggingface_hub reads of HF_ENDPOINT when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that huggingface_hub takes for its own, with the token in the environment."""
    hub = Hub()
    server, address = serve(hub)
    use(monkeypatch, address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    hub.address = address
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def pushed(hub, bundle):
    result = edgeproof("push", bundle, PLACE)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def on_the_hub(hub):
    return hub.commits[hub.names["people/tiny", "main"]]


def test_a_pushed_bundle_lies_there_to_the_byte_and_the_commit_is_said(hub, bundle, pushed):
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert {name: data for name, data in on_the_hub(hub).items() if name != ".gitattributes"} == files
    assert pushed == f"{PLACE}@{hub.names['people/tiny', 'main']}"
    assert hub.objects  # the graphs went by LFS


def test_what_was_pushed_is_judged_and_the_commit_is_recorded(hub, pushed, tmp_path):
    result = edgeproof("verify", PLACE, *FAST, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert f"{PLACE} is {pushed}" in result.stderr
    assert json.loads((tmp_path / "run/report.json").read_text())["artifact"]["origin"] == pushed


def test_a_commit_that_was_asked_for_is_never_another(hub, pushed, tmp_path):
    asked = "a" * 40
    hub.names["people/tiny", asked] = hub.names["people/tiny", "main"]  # as no Hub does
    result = edgeproof("verify", f"{PLACE}@{asked}", *FAST, "--out", tmp_path / "run")
    assert result.exit_code == 3
    assert "the server names another commit" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_revision_is_the_commit_that_it_names_whatever_came_after(hub, bundle, pushed, tmp_path, rewrite):
    first = hub.names["people/tiny", "main"]
    hub.names["people/tiny", "v1"] = first
    rewrite(bundle, "version", value=2)
    assert edgeproof("push", bundle, PLACE).exit_code == 0
    for revision, version, commit in (
        ("v1", 1, first),
        (first, 1, first),
        ("main", 2, hub.names["people/tiny", "main"]),
    ):
        out = tmp_path / f"run-{version}-{len(revision)}"
        assert edgeproof("verify", f"{PLACE}@{revision}", *FAST, "--out", out).exit_code == 0
        artifact = json.loads((out / "report.json").read_text())["artifact"]
        assert (artifact["bundle_version"], artifact["origin"]) == (version, f"{PLACE}@{commit}")


def test_a_file_of_the_model_card_is_shown_as_the_page(hub, tmp_path):
    from tests.paths import ROOT

    assert edgeproof("push", ROOT / "tests/data/tiny-bundle", PLACE, "--private").exit_code == 0
    assert on_the_hub(hub)["README.md"] == (ROOT / "tests/data/tiny-bundle/MODEL_CARD.md").read_bytes()
    assert hub.private["people/tiny"] is True


def verify(*options):
    return edgeproof("verify", PLACE, *FAST, "--out", "run", *options)


def changed(hub, **files):
    now = dict(on_the_hub(hub))
    for name, data in files.items():
        name = name.replace("__", ".")
        if data is None:
            del now[name]
        else:
            now[name] = data
    hub.commit("people/tiny", now)


def test_a_byte_that_changed_there_is_seen_by_the_digest(hub, pushed):
    graph = on_the_hub(hub)["model.fp32.onnx"]
    changed(hub, model__fp32__onnx=graph[:-1] + bytes([graph[-1] ^ 1]))
    result = verify()
    assert (result.exit_code, "its digest differs from the manifest's" in result.stderr) == (3, True), result.stderr


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("manifest__json", None, "is no bundle: it has no manifest.json"),
        ("manifest__json", b"{}", "manifest.json: "),
        ("model__fp32__onnx", None, "is not complete: it has no model.fp32.onnx"),
        ("model__fp32__onnx", b"short", "model.fp32.onnx has 5 bytes"),
    ],
)
def test_what_is_no_whole_bundle_is_refused_before_it_is_fetched(hub, pushed, name, data, says):
    changed(hub, **{name: data})
    hub.requests.clear()
    result = verify()
    assert (result.exit_code, says in result.stderr) == (3, True), result.stderr
    assert not [path for _, path in hub.requests if path.endswith(".onnx")]


def test_files_that_no_manifest_lists_are_left_there(hub, pushed):
    changed(hub, more__py=b"print()", README__md=b"# hello")
    hub.requests.clear()
    assert verify().exit_code == 0
    assert not [path for _, path in hub.requests if path.endswith(("more.py", "README.md", ".gitattributes"))]


def test_under_trust_the_signature_there_is_checked_as_of_any_bundle(hub, bundle, key, tmp_path):
    (tmp_path / "public.pem").write_bytes(pem(key.public_key()))
    trusted = ("--trust", tmp_path / "public.pem")
    assert edgeproof("push", bundle, PLACE).exit_code == 0
    assert (verify(*trusted).exit_code, "is not signed" in verify(*trusted).stderr) == (3, True)
    sign_bundle(bundle, key)
    assert edgeproof("push", bundle, PLACE, *trusted).exit_code == 0
    result = verify(*trusted)
    assert result.exit_code == 0, result.stderr
    assert json.loads(Path("run/report.json").read_text())["artifact"]["authenticated"] is True
    (bundle / "signature.json").unlink()
    assert edgeproof("push", bundle, PLACE).exit_code == 0
    assert "signature.json" not in on_the_hub(hub)


def test_a_damaged_bundle_is_not_pushed(hub, bundle):
    (bundle / "model.fp32.onnx").write_bytes(b"x")
    result = edgeproof("push", bundle, PLACE)
    assert (result.exit_code, hub.requests) == (3, [])


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [(401, 3, "asks for a token"), (403, 3, "may not do this"), (404, 3, "no such repository"), (400, 3, "status 400")],
)
@pytest.mark.parametrize("command", ["push", "verify"])
@pytest.mark.usefixtures("verbosity_as_before")
def test_a_refusal_is_told_and_no_token_with_it(hub, bundle, command, status, code, says):
    hub.answer = status
    result = edgeproof("-v", "push", bundle, PLACE) if command == "push" else edgeproof("-v", "verify", PLACE, *FAST)
    assert result.exit_code == code, result.stderr
    assert says in result.stderr
    assert TOKEN not in result.stdout + result.stderr


def test_no_revision_like_this_is_told(hub, pushed):
    result = edgeproof("verify", f"{PLACE}@v9", *FAST)
    assert (result.exit_code, f"{PLACE}@v9: the Hub refused with status 404" in result.stderr) == (3, True), (
        result.stderr
    )


def test_a_hub_that_cannot_be_reached_is_told(hub, bundle, monkeypatch):
    use(monkeypatch, "http://127.0.0.1:9")
    result = edgeproof("push", bundle, PLACE)
    assert (result.exit_code, "the Hub was not reached" in result.stderr) == (4, True), result.stderr
    assert TOKEN not in result.stderr


@pytest.mark.parametrize("command", [("verify", PLACE, *FAST), ("push",)])
def test_offline_says_so_in_a_process_with_huggingface_hubs_own_settings(hub, bundle, command):
    words = [*command, str(bundle), PLACE] if command == ("push",) else list(command)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.address}
    run = [sys.executable, "-m", "edgeproof", *words]
    result = subprocess.run(run, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 4, result.stderr
    assert "is set to offline" in result.stderr
    assert TOKEN not in result.stderr
    assert hub.requests == []


def test_without_the_extra_the_hint_says_which(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = edgeproof("verify", PLACE, *FAST)
    assert (result.exit_code, "needs the extra 'hub'" in result.stderr) == (4, True), result.stderr
    assert "pip install '.[hub]'" in result.stderr


@pytest.mark.parametrize(
    "text", ["hf://", "hf://tiny", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a/b@-x", "hf://a/b@../c", "hf:// /b"]
)
def test_what_is_no_place_is_a_usage_error(text):
    with pytest.raises(ValueError, match="is not written as"):
        HubPlace.parse(text)
    assert edgeproof("verify", text).exit_code == 2


def test_nothing_is_added_to_a_commit(bundle):
    assert edgeproof("push", bundle, f"{PLACE}@{'a' * 40}").exit_code == 2


def test_a_place_is_read_as_it_is_written():
    for text in ("hf://a/b", "hf://a-1/b.c_d@v1.0", f"hf://a/b@{'0' * 40}", "hf://a/b@refs/pr/1"):
        assert str(HubPlace.parse(text)) == text
