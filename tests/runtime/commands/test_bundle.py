"""key, inspect, install and verify's trust, from the command line."""

import json

import pytest

from runtime.bundle.signing import load_private_key
from tests.command_line import edgeproof
from tests.runtime.bundle.bundles import sign_bundle, write_bundle
from tests.tiny import HALVED, graph

QUICK = ("--attacks", "clean", "--n", 4)


@pytest.fixture
def keys(tmp_path):
    result = edgeproof("key", "new", "--out", tmp_path / "keys")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("key ")
    return tmp_path / "keys"


@pytest.fixture
def version(tmp_path, files, keys):
    """Return a function that writes a signed bundle of a version."""
    key = load_private_key(keys / "private.pem")
    return lambda number: sign_bundle(write_bundle(tmp_path / f"v{number}", files, n=60, version=number), key)


def verify(bundle, out, *options):
    return edgeproof("verify", bundle, *QUICK, "--out", out, *options)


def passing(bundle, out, *options):
    return edgeproof("verify", bundle, "--fail-under", "5%", "--out", out, *options)


def test_keys_are_never_overwritten(keys):
    before = (keys / "private.pem").read_bytes()
    result = edgeproof("key", "new", "--out", keys)
    assert (result.exit_code, f"{keys} holds a key pair already" in result.stderr) == (2, True)
    assert "name another --out" in result.stderr
    assert "remove" not in result.stderr
    assert (keys / "private.pem").read_bytes() == before


def test_verify_under_trust_reports_an_authenticated_artifact(version, keys, tmp_path):
    result = verify(version(1), tmp_path / "report", "--trust", keys / "public.pem")
    assert result.exit_code == 0, result.output
    assert "ort/cpu, authenticated" in result.stdout
    assert json.loads((tmp_path / "report/report.json").read_text())["artifact"]["authenticated"] is True


def test_verify_without_trust_says_not_authenticated_though_it_is_signed(version, tmp_path):
    result = verify(version(1), tmp_path / "report")
    assert result.exit_code == 0
    assert "ort/cpu, not authenticated" in result.stdout
    assert json.loads((tmp_path / "report/report.json").read_text())["artifact"]["authenticated"] is False


def test_an_unsigned_bundle_is_three_under_trust_and_leaves_no_report(bundle, keys, tmp_path):
    result = verify(bundle, tmp_path / "report", "--trust", keys / "public.pem")
    assert result.exit_code == 3
    assert "is not signed" in result.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("command", [("inspect",), ("install", "--to", "device")])
def test_every_command_refuses_the_wrong_key(version, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    edgeproof("key", "new", "--out", "others")
    result = edgeproof(command[0], version(1), *command[1:], "--trust", "others/public.pem")
    assert result.exit_code == 3
    assert "was made with another key" in result.stderr
    assert not (tmp_path / "device").exists()


def test_a_trust_that_is_no_key_is_three_and_one_that_is_not_there_two(version, tmp_path):
    (tmp_path / "no.pem").write_text("?")
    assert edgeproof("inspect", version(1), "--trust", tmp_path / "no.pem").exit_code == 3
    assert edgeproof("inspect", tmp_path / "v1", "--trust", tmp_path / "gone.pem").exit_code == 2


def test_verify_remembers_what_passed_and_refuses_an_older_one(version, tmp_path):
    state = ("--state", tmp_path / "state")
    assert passing(version(2), tmp_path / "a", *state).exit_code == 0
    result = verify(version(1), tmp_path / "b", *state)
    assert result.exit_code == 3
    assert "version 2 was accepted here" in result.stderr
    assert not (tmp_path / "b").exists()
    assert passing(tmp_path / "v1", tmp_path / "c", *state, "--allow-rollback").exit_code == 0
    assert verify(tmp_path / "v1", tmp_path / "d", *state).exit_code == 0


def test_verify_refuses_what_nobody_checked_where_a_signed_bundle_is_on_record(version, keys, tmp_path, monkeypatch):
    state, trust = ("--state", tmp_path / "state"), ("--trust", keys / "public.pem")
    assert edgeproof("install", version(2), "--to", tmp_path / "device", *state, *trust).exit_code == 0
    with monkeypatch.context() as closed:
        closed.setattr("runtime.commands.subjects.pairing_of", lambda *given, **named: pytest.fail("opened"))
        result = verify(version(3), tmp_path / "b", *state)
    assert result.exit_code == 3
    assert f"a signed tiny was accepted here, and {tmp_path / 'v3'} was not authenticated" in result.stderr
    assert "--allow-unsigned" in result.stderr
    assert not (tmp_path / "b").exists()
    assert verify(tmp_path / "v3", tmp_path / "c", *state, "--allow-unsigned").exit_code == 0
    assert verify(tmp_path / "v3", tmp_path / "d", *state).exit_code == 3
    assert verify(tmp_path / "v3", tmp_path / "e", *state, *trust).exit_code == 0


@pytest.mark.parametrize("command", ["bench", "gpu-check"])
def test_what_runs_a_bundle_with_a_state_asks_what_verify_asks(version, keys, tmp_path, monkeypatch, command):
    state, trust = ("--state", tmp_path / "state"), ("--trust", keys / "public.pem")
    assert edgeproof("install", version(2), "--to", tmp_path / "device", *state, *trust).exit_code == 0
    with monkeypatch.context() as closed:
        closed.setattr("runtime.commands.bench.open_session", lambda *given, **named: pytest.fail("opened"))
        closed.setattr("runtime.commands.gpu_check.in_a_process", lambda *given, **named: pytest.fail("opened"))
        unchecked = edgeproof(command, version(3), *state, "--out", tmp_path / "b")
        older = edgeproof(command, version(1), *state, *trust, "--out", tmp_path / "b")
    assert (unchecked.exit_code, older.exit_code) == (3, 3)
    assert f"a signed tiny was accepted here, and {tmp_path / 'v3'} was not authenticated" in unchecked.stderr
    assert "version 2 was accepted here" in older.stderr
    assert not (tmp_path / "b").exists()


def test_a_bench_goes_on_where_one_says_so_and_puts_nothing_on_record(version, keys, tmp_path):
    state, trust = ("--state", tmp_path / "state"), ("--trust", keys / "public.pem")
    assert edgeproof("install", version(2), "--to", tmp_path / "device", *state, *trust).exit_code == 0
    before = (tmp_path / "state/accepted.json").read_bytes()
    quick = ("--batch", "1", "--seconds", "0.01")
    assert edgeproof("bench", version(3), *state, *quick, "--allow-unsigned").exit_code == 0
    assert edgeproof("bench", version(1), *state, *trust, *quick, "--allow-rollback").exit_code == 0
    assert (tmp_path / "state/accepted.json").read_bytes() == before


def test_a_bundle_that_fails_its_gate_is_not_accepted(version, tmp_path):
    gate = ("--state", tmp_path / "state", "--attacks", "fgsm", "--fail-under", "100%", "--eps", "1", "--n", 20)
    assert verify(version(2), tmp_path / "a", *gate).exit_code == 1
    assert verify(version(1), tmp_path / "b", "--state", tmp_path / "state").exit_code == 0


@pytest.mark.parametrize("without", [(), ("--no-gate",)])
def test_a_bundle_that_no_gate_judged_is_measured_and_not_accepted(version, tmp_path, without):
    state = ("--state", tmp_path / "state")
    assert verify(version(2), tmp_path / "a", *state, *without).exit_code == 0
    assert not (tmp_path / "state/accepted.json").exists()


def test_a_finished_shard_is_not_accepted_yet(version, tmp_path):
    state = ("--state", tmp_path / "state")
    assert verify(version(2), tmp_path / "a", *state, "--shard", "1/2").exit_code == 0
    assert verify(version(1), tmp_path / "b", *state).exit_code == 0


@pytest.mark.parametrize(("trusted", "authenticated"), [((1, 2), True), ((1,), False), ((2,), False)])
def test_merged_shards_are_authenticated_if_all_are(version, keys, tmp_path, trusted, authenticated):
    version(1)
    shards = [tmp_path / "shard1", tmp_path / "shard2"]
    for number, out in enumerate(shards, 1):
        trust = ("--trust", keys / "public.pem") if number in trusted else ()
        assert verify(tmp_path / "v1", out, "--shard", f"{number}/2", *trust).exit_code == 0
    result = edgeproof("merge", *shards, "--json", "--out", tmp_path / "merged")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["artifact"]["authenticated"] is authenticated


def test_the_fp32_that_a_drop_is_measured_from_is_authenticated_too(files, task, keys, tmp_path):
    files["model.fp16.onnx"] = graph(HALVED, *task[:2])
    rest = {"gradient": "model.fp32.grad.onnx", "opset": 18}
    graphs = {name: {"forward": f"model.{name}.onnx", **rest} for name in ("fp32", "fp16")}
    twice = write_bundle(tmp_path / "twice", files, n=60, graphs=graphs, ships="fp16")
    sign_bundle(twice, load_private_key(keys / "private.pem"))
    drop = ("--trust", keys / "public.pem", "--attacks", "fgsm", "--max-drop", "50%")
    assert verify(twice, tmp_path / "report", *drop).exit_code in (0, 5)
    for name in ("report", "report-fp32"):
        assert json.loads((tmp_path / name / "report.json").read_text())["artifact"]["authenticated"] is True


def test_a_model_file_has_no_signature_to_trust(files, keys, tmp_path):
    (tmp_path / "model.onnx").write_bytes(files["model.fp32.onnx"])
    result = verify(tmp_path / "model.onnx", tmp_path / "report", "--trust", keys / "public.pem", "--data", "x.npz")
    assert result.exit_code == 2
    assert "no signature" in result.stderr
    assert not (tmp_path / "report").exists()


def test_the_state_directory_can_come_from_the_environment(version, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPROOF_STATE", str(tmp_path / "state"))
    assert edgeproof("install", version(2), "--to", tmp_path / "device").exit_code == 0
    assert (tmp_path / "state/accepted.json").exists()
    assert verify(version(1), tmp_path / "report").exit_code == 3


def test_inspect_says_what_is_in_it_and_whose_it_is(version, keys):
    result = edgeproof("inspect", version(3), "--trust", keys / "public.pem")
    assert result.exit_code == 0, result.output
    for words in (
        "tiny version 3",
        "input: 1 x 4 x 4; 3 classes",
        "fp32: opset 18",
        "with gradient graph, ships",
        "60 images of tiny/test",
        "intact: all 3 files",
        "authenticated: signed with key ",
    ):
        assert words in result.stdout


def test_inspect_without_trust_tells_unsigned_from_unchecked(bundle, version):
    assert edgeproof("inspect", bundle).stdout.endswith("not authenticated: it is not signed\n")
    assert edgeproof("inspect", version(1)).stdout.endswith("not authenticated: no --trust given\n")


def test_inspect_lets_no_bundle_speak_to_the_terminal(bundle, rewrite):
    rewrite(bundle, "created", value="\x1b[2Jlong ago")
    result = edgeproof("inspect", bundle)
    assert result.exit_code == 0, result.output
    assert "made ?[2Jlong ago" in result.stdout


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"?")
    result = edgeproof("inspect", tmp_path / "model.onnx")
    assert result.exit_code == 3
    assert "it is a file" in result.stderr


def test_what_is_installed_verifies_and_going_back_needs_to_be_asked_for(version, keys, tmp_path):
    trust, to = ("--trust", keys / "public.pem"), ("--to", tmp_path / "device")
    for number in (1, 2):
        result = edgeproof("install", version(number), *to, *trust)
        assert result.exit_code == 0, result.output
        assert f"is tiny-{number}-" in result.stdout
        assert "authenticated: signed with key" in result.stdout
    assert verify(tmp_path / "device/current", tmp_path / "report", *trust).exit_code == 0
    back = ("install", tmp_path / "device/previous", *to, *trust)
    assert edgeproof(*back).exit_code == 3
    assert edgeproof(*back, "--allow-rollback").exit_code == 0


def test_a_forgotten_trust_does_not_replace_a_signed_model(version, keys, tmp_path):
    device, trust = tmp_path / "device", ("--trust", keys / "public.pem")
    assert edgeproof("install", version(3), "--to", device, *trust).exit_code == 0
    before = (device / "current").readlink()
    result = edgeproof("install", version(4), "--to", device)
    assert result.exit_code == 3
    assert f"a signed tiny was accepted here, and {tmp_path / 'v4'} was not authenticated" in result.stderr
    assert "--allow-unsigned" in result.stderr
    assert (device / "current").readlink() == before
    assert edgeproof("install", tmp_path / "v4", "--to", device, "--allow-unsigned").exit_code == 0
    assert (device / "current").readlink().name.startswith("tiny-4-")
    assert edgeproof("install", version(5), "--to", device).exit_code == 3
    assert edgeproof("install", tmp_path / "v5", "--to", device, *trust).exit_code == 0


def test_a_signed_bundle_is_told_that_the_newer_one_was_not_authenticated(version, keys, tmp_path):
    assert edgeproof("install", version(4), "--to", tmp_path / "device").exit_code == 0
    result = edgeproof("install", version(3), "--to", tmp_path / "device", "--trust", keys / "public.pem")
    assert result.exit_code == 3
    assert "version 4 was accepted here, which was not authenticated" in result.stderr
