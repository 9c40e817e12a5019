import pytest

from runtime.bundle.evaluation import evaluation_images
from runtime.bundle.opening import open_bundle
from runtime.errors import BadBundle


def test_a_whole_bundle_gives_its_manifest_and_bytes(bundle, files):
    opened = open_bundle(bundle)
    assert opened.manifest.name == "tiny"
    assert all(opened.read(name) == data for name, data in files.items())
    assert opened.manifest.to_json() == (bundle / "manifest.json").read_bytes()


def test_evaluation_images_can_be_asked_for_again_though_their_file_is_let_go(bundle):
    opened = open_bundle(bundle)
    images = evaluation_images(opened)
    assert "evaluation.npz" not in opened.contents
    assert evaluation_images(opened) is images


def test_evaluation_images_that_cannot_be_read_are_refused_as_often_as_they_are_asked_for(bundle, rewrite):
    rewrite(bundle, "evaluation", "n", value=59)
    opened = open_bundle(bundle)
    for _ in range(2):
        with pytest.raises(BadBundle, match="are not the 59 that the manifest records"):
            evaluation_images(opened)


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.fp32.grad.onnx", "evaluation.npz"])
def test_a_bundle_with_one_changed_byte_is_refused(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BadBundle, match=f"{name}: its digest differs"):
        open_bundle(bundle)


def test_a_run_in_place_of_a_bundle_is_refused_with_the_command_that_shows_it(finished):
    with pytest.raises(BadBundle, match=r"has no manifest\.json") as refused:
        open_bundle(finished[0])
    assert "`edgeproof report` shows" in refused.value.hint


def cut(bundle):
    path = bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-10])


def remove(bundle):
    (bundle / "evaluation.npz").unlink()


def add(bundle):
    (bundle / "stray.txt").write_text("?")


def link(bundle):
    path = bundle / "evaluation.npz"
    path.rename(bundle.parent / "outside.npz")
    path.symlink_to(bundle.parent / "outside.npz")


def empty(bundle):
    (bundle / "manifest.json").write_text("")


def no_manifest(bundle):
    (bundle / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [cut, remove, add, link, empty, no_manifest])
def test_a_damaged_bundle_is_refused(bundle, damage):
    damage(bundle)
    with pytest.raises(BadBundle) as caught:
        open_bundle(bundle)
    assert caught.value.exit_code == 3
    assert caught.value.hint


@pytest.mark.parametrize("name", [".DS_Store", "NOTES.txt"])
def test_a_file_that_is_not_listed_is_to_be_removed(bundle, name):
    (bundle / name).write_bytes(b"")
    with pytest.raises(BadBundle, match=f"{name} is not listed") as caught:
        open_bundle(bundle)
    assert caught.value.hint == "remove it"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["schema"], "edgeproof.bundle/2"),
        (["unknown"], 1),
        (["version"], 0),
        (["classes"], ["only"]),
        (["ships"], "int8"),
        (["threat_model", "eps"], 2),
        (["graphs", "fp32", "forward"], "../model.onnx"),
        (["graphs", "fp32", "forward"], "other.onnx"),
        (["files", "model.fp32.onnx", "sha256"], "?"),
        (["input", "channels"], 0),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(bundle, rewrite, keys, value):
    rewrite(bundle, *keys, value=value)
    with pytest.raises(BadBundle, match=r"manifest\.json") as caught:
        open_bundle(bundle)
    assert caught.value.hint
