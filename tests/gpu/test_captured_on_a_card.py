"""Passes of a PyTorch network as CUDA graphs: they answer as eager ones do, wait for nothing, and give memory back."""

import gc

import numpy as np
import pytest
import torch

from pipeline.models import build_network
from pipeline.models.captured import Replays, alike, cuda_graphs
from pipeline.runs.evaluate import TorchSession, forward, gradient, placement
from runtime.attacks import PGD
from runtime.attacks.losses import cross_entropy, one_hot, targeted_dlr
from runtime.batches.fixed_sizes import FixedSizes, fixed_size
from runtime.images.image_set import ImageSet
from runtime.suite.campaign import Campaign
from runtime.suite.run import clean_pass
from runtime.suite.units import Target
from runtime.terminal.progress import Silent

pytestmark = pytest.mark.gpu
SIZES = (64, 20, 7, 64, 33, 20)
CLASSES = 10


@pytest.fixture
def device():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    return torch.device("cuda")


@pytest.fixture(params=["resnet18", "mobilenet_v2", "wideresnet"])
def network(request, device):
    torch.manual_seed(0)
    depth = {"wideresnet": 10}.get(request.param)
    built = build_network(request.param, channels=3, classes=CLASSES, width=0.5, depth=depth)
    with torch.no_grad():
        built.train()(torch.rand(256, 3, 32, 32))  # statistics that are not those of a fresh network
    return built.to(device).eval()


def asked(size, device, loss=cross_entropy):
    """Return images and a loss on the card."""
    label = one_hot(torch.randint(CLASSES, (size,), device=device), CLASSES)
    arguments = (label,) if loss is cross_entropy else (label, label.roll(1, dims=1))
    return torch.rand(size, 3, 32, 32, device=device), loss(*arguments)


def test_passes_of_any_size_in_any_order_answer_as_eager_ones(network, device, said):
    torch_session = TorchSession(network, sha256="", device=device)
    session = FixedSizes(torch_session, 512)
    for _ in range(3):
        for size in SIZES:
            x, loss = asked(size, device, targeted_dlr if size % 2 else cross_entropy)
            assert alike(session.loss_gradient(x, loss), gradient(network, x, *vars(loss).values()))
            assert alike((session.logits(x),), forward(network, x))
    session.confirm()
    assert not said.messages
    assert len(torch_session._replays._captured) == 2 * len(set(map(fixed_size, SIZES)))


def test_an_answer_stays_what_it_is_when_other_graphs_of_the_same_memory_are_replayed(network, device):
    session = TorchSession(network, sha256="", device=device)
    for size in 2 * SIZES:
        session.loss_gradient(*asked(size, device))
    x, loss = asked(64, device)
    answer = session.loss_gradient(x, loss)
    kept = [tensor.clone() for tensor in answer]
    for size in SIZES:
        session.loss_gradient(*asked(size, device))
        session.logits(asked(size, device)[0])
    assert all(torch.equal(one, other) for one, other in zip(answer, kept, strict=True))


def test_a_replay_waits_for_nothing(network, device):
    session = TorchSession(network, sha256="", device=device)
    x, loss = asked(64, device)
    for _ in range(2):
        session.loss_gradient(x, loss)
        session.logits(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        session.loss_gradient(x, loss)
        session.logits(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_weights_that_change_in_place_are_those_of_the_next_replay(network, device):
    session = TorchSession(network, sha256="", device=device)
    x, _ = asked(64, device)
    before = [session.logits(x) for _ in range(3)][-1]
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(0.9)
    assert not alike((session.logits(x),), (before,))
    assert alike((session.logits(x),), forward(network, x))


def test_a_function_that_waits_for_the_device_falls_back_and_the_card_still_works(device, said):
    def waiting(x):
        return (x * x.sum().item(),)

    replays = Replays(lambda: cuda_graphs(device))
    for _ in range(4):
        x = torch.rand(20, 3, device=device)
        assert alike(replays.ask(waiting, x), waiting(x))
    (message,) = said.messages
    assert "captur" in message

    def square(x):
        return (x.square(),)

    again = Replays(lambda: cuda_graphs(device))
    for _ in range(4):
        x = torch.rand(20, 3, device=device)
        assert alike(again.ask(square, x), square(x))
    assert len(again._captured) == 1


def test_a_session_that_goes_gives_its_memory_back(network, device):
    def left():
        session = TorchSession(network, sha256="", device=device)
        for size in 2 * SIZES:
            session.loss_gradient(*asked(size, device))
        session.close()
        del session
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    first = left()
    assert all(left() <= first for _ in range(3))


def test_a_suite_on_the_card_side_by_side_ends_as_on_the_cpu(network, device):
    """Threads compute on tensors while passes are captured."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 3, 32, 32)).astype(np.uint8)
    evidence = []
    labels = forward(network, torch.from_numpy(pixels / np.float32(255)).to(device))[0].argmax(dim=1).cpu().numpy()
    for where in (device, torch.device("cpu")):
        session = TorchSession(network, sha256="", device=where)
        full, images = session.batching((3, 32, 32)).full, ImageSet("noise", pixels, labels, np.arange(300))
        sized = FixedSizes(session, 128) if full else session
        target = Target(sized, images, CLASSES, 128, placement(where), full=full)
        found = clean_pass(target, 0, Silent())
        Campaign(target, found, 1 / 1020, 0, Silent()).attack(PGD, 0)
        evidence.append(found)
    assert (evidence[0].robust == evidence[1].robust).mean() >= 0.99
