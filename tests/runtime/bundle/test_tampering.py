"""A bundle whose files are others than its manifest lists, signed or not."""

import os

import pytest

from runtime.bundle.opening import open_bundle
from runtime.errors import BadBundle
from tests.runtime.bundle.bundles import add_a_file, change_a_graph


def change_size(bundle):
    path = bundle / "evaluation.npz"
    path.write_bytes(path.read_bytes() + b"?")


def drop(bundle):
    (bundle / "evaluation.npz").unlink()


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
    "an edited file": (change_a_graph, r"model\.fp32\.onnx: its digest differs"),
    "a wrong size": (change_size, r"evaluation\.npz has \d+ bytes"),
    "a missing file": (drop, r"evaluation\.npz is listed in the manifest but missing"),
    "an added file": (add_a_file, r"more\.bin is not listed"),
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
