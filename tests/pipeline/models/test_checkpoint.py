import pickle

import pytest
import safetensors.torch
import torch

from pipeline.models.checkpoint import Figures, NetworkCard, load_checkpoint, save_checkpoint
from runtime.bundle.manifest import InputShape
from runtime.errors import BadModel


@pytest.fixture
def card():
    return NetworkCard(
        arch="resnet18",
        width=0.125,
        input=InputShape(channels=1, height=28, width=28),
        classes=tuple("0123456789"),
        mean=(0.3,),
        std=(0.4,),
        figures=Figures(epoch=1, n=10, clean=0.5, pgd=0.4),
    )


@pytest.fixture
def saved(tmp_path, card):
    network = card.build().eval()
    save_checkpoint(tmp_path / "net.safetensors", network, card)
    return tmp_path / "net.safetensors", network


def test_a_checkpoint_comes_back_whole(saved, card):
    path, network = saved
    loaded, loaded_card = load_checkpoint(path)
    x = torch.rand(2, 1, 28, 28)
    assert loaded_card == card
    assert torch.equal(loaded.eval()(x), network(x))


def test_writing_leaves_no_temporary_file_and_equal_bytes(saved, card):
    path, network = saved
    before = path.read_bytes()
    save_checkpoint(path, network, card)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 1, 100, 20_000])
def test_a_truncated_checkpoint_is_refused(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadModel, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_pickle_is_never_loaded(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    with pytest.raises(BadModel):
        load_checkpoint(path)


def test_safetensors_without_a_card_and_weights_of_another_shape_are_refused(saved, card):
    path, network = saved
    path.write_bytes(safetensors.torch.save(network.state_dict()))
    with pytest.raises(BadModel):
        load_checkpoint(path)
    save_checkpoint(path, network, card.model_copy(update={"width": 0.25}))
    with pytest.raises(BadModel):
        load_checkpoint(path)


def test_a_missing_checkpoint_says_where_it_looked(tmp_path):
    with pytest.raises(BadModel, match=str(tmp_path)):
        load_checkpoint(tmp_path / "none.safetensors")
