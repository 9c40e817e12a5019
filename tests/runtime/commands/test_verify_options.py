"""The options of `verify`: what they explain, and where the images come from."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.commands.verify import verify
from runtime.images import find
from runtime.images.image_set import ImageSet
from runtime.options.record import record_options
from runtime.options.run import RunOptions
from runtime.verdict.options import VerifyOptions
from tests.command_line import edgeproof

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.mark.parametrize("option", verify.params[1:], ids=lambda option: option.name)
def test_every_option_explains_itself_in_a_sentence(option):
    sentence = option.help.partition("  [default")[0]
    assert len(sentence.split()) > 3
    assert sentence.endswith(".")
    assert not sentence.startswith("Of ")


def test_the_shared_options_suit_a_run_as_well_as_a_bundle():
    shared = record_options(options=VerifyOptions, run=RunOptions)(lambda: None).__click_params__
    assert not [option.name for option in shared if "[default: the bundle's]" in option.help]


@pytest.mark.parametrize(
    ("flag", "value", "meant"),
    [("--fail-under", "45", "45%"), ("--max-drop", "1.5", "1.5%"), ("--eps", "8", "8/255"), ("--eps", "-1", None)],
)
def test_a_number_without_its_unit_is_refused_with_what_was_meant(bundle, flag, value, meant):
    result = edgeproof("verify", bundle, flag, value)
    assert result.exit_code == 2
    assert (f"did you mean {meant}?" in result.stderr) == (meant is not None)


@pytest.mark.parametrize(("provider", "backend"), [("cuda", "ort"), ("cpu", "ort"), ("gpu", "openvino")])
def test_a_provider_in_place_of_a_backend_is_refused_with_what_to_ask_for(bundle, provider, backend):
    result = edgeproof("verify", bundle, "--backend", provider)
    assert result.exit_code == 2
    assert f"use --backend {backend} --provider {provider}" in result.stderr


def test_the_backend_can_be_set_by_the_environment(bundle):
    assert edgeproof("verify", bundle, env={"EDGEPROOF_BACKEND": "magic"}).exit_code == 2


def test_images_of_ones_own_are_judged_in_place_of_the_bundles(bundle, task, tmp_path):
    *_, images, labels = task
    np.savez("own.npz", x=images[:12].transpose(0, 2, 3, 1), y=labels[:12])
    result = edgeproof("verify", bundle, "--data", "own.npz", "--layout", "nhwc", "--out", "run", "--json")
    assert json.loads(result.stdout)["data"]["name"] == "own"
    assert json.loads(result.stdout)["clean"]["n"] == 12


def test_a_set_known_by_name_is_read_from_the_data_root(bundle, task, monkeypatch, tmp_path):
    *_, images, labels = task
    roots = []

    def known(root):
        roots.append(root)
        return ImageSet("known/test", images, labels, np.arange(60))

    entry = SimpleNamespace(name="known", extras=["train"], load=lambda: known)
    monkeypatch.setattr(find, "entry_points", lambda group: [entry])
    options = ["--data", "known", "--attacks", "clean"]
    assert edgeproof("verify", bundle, *options, "--out", "a").exit_code == 0
    assert edgeproof("verify", bundle, *options, "--data-root", tmp_path / "sets", "--out", "b").exit_code == 0
    assert roots == [Path("data"), tmp_path / "sets"]
