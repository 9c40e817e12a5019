"""Ten thousand mutations of everything that is read: a typed error or a right answer, and nothing else.

The fast tier takes a fiftieth of them.
"""

import dataclasses
import io
import json
import select
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.recipe.schema import Recipe, load_recipe
from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.manifest import MANIFEST, SIGNATURE
from runtime.bundle.opening import open_bundle
from runtime.bundle.rollback import State, read_state
from runtime.errors import BadModel
from runtime.files import sha256
from runtime.graph.scan import refuse_outside_data
from runtime.images.npz import read_npz
from runtime.suite.journal import JOURNAL, Journal, Work
from tests.paths import ROOT
from tests.runtime.graph.test_scan import inside_a_branch
from tests.runtime.mutation import TEXT, explore

SHARE = 50
PATIENCE = 60
"""Seconds after which a graph hangs."""
LARGEST_ARRAY = 2**27
"""Bytes; what claims more cannot be in files as small as these."""


@pytest.fixture(params=[SHARE, pytest.param(1, marks=pytest.mark.slow)], ids=["share", "all"])
def share(request):
    return request.param


@dataclasses.dataclass
class Restored:
    """A directory in which one file at a time is changed, and put back."""

    path: Path

    def __post_init__(self):
        self.whole = {file.name: file.read_bytes() for file in self.path.iterdir()}

    def reading(self, name, data, read):
        (self.path / name).write_bytes(data)
        try:
            return read(self.path)
        finally:
            (self.path / name).write_bytes(self.whole[name])


def test_a_signed_bundle_with_a_changed_file_is_refused_or_the_change_says_nothing(signed, trust, share):
    bundle = Restored(signed)

    def check(name, data):
        opened = bundle.reading(name, data, lambda path: open_bundle(path, trust))
        assert {**{file: opened.read(file) for file in opened.contents}, SIGNATURE: b""} == {
            **bundle.whole,
            SIGNATURE: b"",
        }

    seen = explore(bundle.whole, check, 2500 // share)
    assert seen["refused"] > seen["right"]


def test_a_changed_manifest_is_refused_or_says_the_truth_of_every_file(bundle, share):
    unsigned = Restored(bundle)

    def check(name, data):
        opened = unsigned.reading(name, data, open_bundle)
        for file, entry in opened.manifest.files.items():
            assert (sha256(opened.read(file)), len(opened.read(file))) == (entry.sha256, entry.size)
        assert opened.manifest.graphs[opened.manifest.ships].forward in unsigned.whole

    explore({MANIFEST: unsigned.whole[MANIFEST]}, check, 2500 // share, TEXT)


def check_images(images):
    assert images.images.nbytes < LARGEST_ARRAY
    assert len(images) == len(images.labels) == len(images.ids) > 0
    assert images.labels.min() >= 0
    if images.images.dtype == np.float32:
        assert 0 <= images.images.min() <= images.images.max() <= 1


def test_a_changed_npz_is_refused_or_its_images_are_sound(files, share):
    explore(
        {"evaluation.npz": files["evaluation.npz"]},
        lambda name, data: check_images(read_npz(data, layout="nchw")),
        1000 // share,
    )


def test_an_npz_of_changed_arrays_is_refused_or_its_images_are_sound(files, share):
    """The archive is whole, so that the change reaches the reader of the arrays."""
    with zipfile.ZipFile(io.BytesIO(files["evaluation.npz"])) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}

    def check(name, data):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, content in {**arrays, name: data}.items():
                archive.writestr(member, content)
        check_images(read_npz(buffer.getvalue(), layout="nchw"))

    headers = {name: data[:160] for name, data in arrays.items()}
    explore(headers, lambda name, data: check(name, data + arrays[name][160:]), 1500 // share, TEXT)


def test_a_bundle_of_changed_images_whose_digests_hold_is_refused_or_its_images_are_sound(bundle, share):
    unsigned = Restored(bundle)
    manifest = json.loads(unsigned.whole[MANIFEST])

    def check(name, data):
        manifest["files"][name] = {"sha256": sha256(data), "size": len(data)}
        (bundle / MANIFEST).write_text(json.dumps(manifest))
        images = evaluation_images(unsigned.reading(name, data, open_bundle))
        assert images.sha256 == manifest["evaluation"]["sha256"]

    explore({"evaluation.npz": unsigned.whole["evaluation.npz"]}, check, 500 // share)


class Judges:
    """A worker that judges graphs, replaced when it dies, which is counted."""

    def __init__(self):
        self.deaths = []
        self._worker = None

    def judge(self, forward, gradient):
        if self._worker is None:
            command = [sys.executable, "-m", "tests.runtime.graph_worker"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._worker = subprocess.Popen(command, cwd=ROOT, **pipes)
        worker = self._worker
        job = b"".join(len(graph).to_bytes(8, "little") + graph for graph in (forward, gradient))
        try:
            worker.stdin.write(job)
            worker.stdin.flush()
            ready, _, _ = select.select([worker.stdout], [], [], PATIENCE)
            answer = worker.stdout.readline() if ready else b""
        except BrokenPipeError:
            answer = b""
        if not answer:
            self.close()
            self.deaths.append(worker.returncode)
        return answer.decode().strip()

    def close(self):
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None


@pytest.fixture(scope="module")
def judges():
    judges = Judges()
    yield judges
    judges.close()


def test_the_judges_survive_a_process_that_dies_and_say_so(files, judges):
    forward, gradient = files["model.fp32.onnx"], files["model.fp32.grad.onnx"]
    assert judges.judge(forward, gradient) == "measured"
    judges._worker.kill()
    assert judges.judge(forward, gradient) == ""
    assert judges.deaths == [-9]
    judges.deaths.clear()
    assert judges.judge(forward, gradient) == "measured"


def test_a_changed_graph_is_refused_or_judged_and_never_ends_the_process(files, judges, share):
    graphs = {name: data for name, data in files.items() if name.endswith(".onnx")}

    def check(name, data):
        for graph in (data,) if b"location" in data else ():
            refuse_outside_data(name, graph)
        changed = {**graphs, name: data}
        answer = judges.judge(changed["model.fp32.onnx"], changed["model.fp32.grad.onnx"])
        assert answer, f"the process ended: {judges.deaths}"
        if answer not in ("measured", "passed", "failed", "inconclusive"):
            raise BadModel(answer)

    explore(graphs, check, 2000 // share)
    assert not judges.deaths


def test_a_changed_graph_that_reaches_outside_never_passes_the_search(share):
    """Whatever onnx still reads as a reference to outside is refused, whatever else was changed."""
    import onnx

    def check(name, data):
        refuse_outside_data(name, data)
        try:
            graph = onnx.load_from_string(data)
        except Exception:
            return
        assert b"weights.bin" not in external_locations(graph)

    explore({"branch": inside_a_branch("weights.bin").SerializeToString()}, check, 500 // share)


def external_locations(message):
    """Return the locations of external data anywhere in a message, by reflection."""
    import onnx

    found = []
    if isinstance(message, onnx.TensorProto) and message.data_location == onnx.TensorProto.EXTERNAL:
        found += [entry.value.encode() for entry in message.external_data if entry.key == "location"]
    for _, value in message.ListFields():
        for inner in value if hasattr(value, "add") else (value,):
            if hasattr(inner, "ListFields"):
                found += external_locations(inner)
    return found


def test_a_changed_recipe_is_refused_or_a_whole_recipe(tmp_path, share):
    recipes = {path.name: path.read_bytes() for path in (ROOT / "pipeline/recipes").glob("*.toml")}
    assert recipes

    def check(name, data):
        (tmp_path / name).write_bytes(data)
        assert isinstance(load_recipe(str(tmp_path / name), ()), Recipe)

    explore(recipes, check, 1500 // share, TEXT)


def test_a_changed_record_of_what_was_accepted_is_refused_or_a_whole_record(tmp_path, share):
    whole = State.model_validate(
        {"accepted": {"tiny": {"version": 3, "manifest_sha256": "0" * 64, "authenticated": True}}}
    )

    def check(name, data):
        (tmp_path / name).write_bytes(data)
        assert all(entry.version >= 1 for entry in read_state(tmp_path).accepted.values())

    explore({"accepted.json": whole.model_dump_json(by_alias=True).encode()}, check, 500 // share, TEXT)


def test_a_changed_journal_is_refused_or_holds_only_what_was_done(tmp_path, share):
    first = Journal(tmp_path, "0" * 64)
    index = np.arange(4)
    done = {name: first.unit(name, index, lambda: Work({"value": index * 2})) for name in ("a", "b", "c")}
    first.close()
    path = tmp_path / JOURNAL

    def check(name, data):
        path.write_bytes(data)
        again = Journal(tmp_path, "0" * 64)
        try:
            held = [name for name in done if again.holds(name)]
            assert held == list(done)[: len(held)]
            for name in held:
                left = again.unit(name, index, lambda: pytest.fail("done again"))
                np.testing.assert_array_equal(left.arrays["value"], done[name].arrays["value"])
        finally:
            again.close()

    explore({"journal": path.read_bytes()}, check, 1000 // share, TEXT)
