"""Buffers that stay on the device, and CUDA graphs: the same answers to the bit, or none."""

import logging

import numpy as np
import onnxruntime
import pytest
import torch

from runtime.attacks import ATTACKS
from runtime.attacks.losses import cross_entropy, margin, one_hot
from runtime.attacks.noise import Noise
from runtime.attacks.oracle import Oracle, Points
from runtime.backends import binding
from runtime.backends.binding import Bound
from runtime.backends.ort import OrtSession
from runtime.batches.fixed_sizes import FixedSizes
from runtime.batches.halving import BatchHalving
from runtime.errors import BadModel, OutOfMemory
from runtime.images.image_set import ImageSet
from runtime.session import GRADIENT_OUTPUTS, INPUT
from runtime.suite.journal import Journal
from runtime.suite.run import run_suite
from runtime.suite.units import Target
from runtime.terminal.progress import Silent
from tests.fakes import planned
from tests.runtime.backends.fake_onnxruntime import CPU, open_
from tests.tiny import EPS

PLACES = {"numpy": lambda array: array, "torch": torch.from_numpy}


@pytest.fixture
def here(files):
    """The session on the CPU."""
    return OrtSession(files["model.fp32.onnx"], files["model.fp32.grad.onnx"], precision="fp32", threads=1)


def asked(task, n, place=PLACES["numpy"], loss=cross_entropy):
    label = one_hot(place(task[3][:n]), 3)
    return place(task[2][:n]), loss(label)


def answers(session, x, loss):
    return [np.asarray(array) for array in (session.logits(x), *session.loss_gradient(x, loss))]


def same(ours, theirs):
    return [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="edgeproof")
    return caplog


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_is_bound_answers_to_the_bit_what_is_copied(task, files, place):
    session = onnxruntime.InferenceSession(files["model.fp32.grad.onnx"], providers=[CPU])
    bound = Bound("gradient graph", session, "cpu", captures=False)
    names = {entry.name for entry in session.get_inputs()}
    for n in (5, 60, 5, 1, 17, 60):
        for loss in (cross_entropy, margin):
            x, spec = asked(task, n, place, loss)
            feeds = {name: array for name, array in {INPUT: x, **vars(spec)}.items() if name in names}
            expected = session.run(list(GRADIENT_OUTPUTS), {name: np.asarray(array) for name, array in feeds.items()})
            found = bound.run(GRADIENT_OUTPUTS, feeds)
            assert {type(array) for array in found} == {type(x)}
            assert same([np.asarray(array) for array in found], expected)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_answer_stays_what_it_was_when_the_next_is_asked(card, files, task, tmp_path, place):
    card()
    session = open_(files, "cuda", tmp_path)
    x, loss = asked(task, 20, place)
    first = answers(session, x, loss)
    kept = [array.copy() for array in first]
    answers(session, 1 - x, loss)
    assert same(first, kept)


@pytest.mark.parametrize("graphs", ["sound", "stale", "fails", "refused"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_gpu_answers_what_its_kernels_do_however_it_is_with_cuda_graphs(
    here, card, files, task, tmp_path, graphs, place, told
):
    fake = card(graphs=graphs)
    session = open_(files, "cuda", tmp_path)
    for shift in (0.0, 0.1, 0.2):
        for n in (32, 7, 60, 32):
            x, loss = asked(task, n, place)
            x = (x + shift) % 1
            assert same(answers(session, x, loss), answers(here, np.asarray(x), asked(task, n)[1]))
    said = [record.getMessage() for record in told.records if "without CUDA graphs" in record.getMessage()]
    reason = {
        "sound": None,
        "stale": "a replay gives other answers",
        "fails": "operation not permitted when stream is capturing",
        "refused": "cannot use the graph capture feature",
    }[graphs]
    assert len(said) == (2 if reason else 0)  # a forward and a gradient graph
    assert all(reason in line for line in said)
    if graphs == "sound":
        assert [sorted(each.captured) for each in fake.sessions] == [["1", "2", "3"]] * 2


@pytest.mark.parametrize("rows", [[0], [0] * 16], ids=["one image", "copies of one"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_graph_that_keeps_the_labels_of_its_capture_is_found_though_all_images_have_the_same(
    here, card, files, task, tmp_path, rows, place
):
    card(graphs="stale labels")
    session = open_(files, "cuda", tmp_path)
    for label in task[3][rows], (task[3][rows] + 1) % 3:
        x, ours = place(task[2][rows]), cross_entropy(one_hot(place(label), 3))
        theirs = cross_entropy(one_hot(label, 3))
        assert same(answers(session, x, ours), answers(here, task[2][rows], theirs))


def test_a_graph_that_is_right_at_first_and_stale_later_ends_the_run(card, files, task, tmp_path, monkeypatch):
    monkeypatch.setattr(binding, "HELD", 20)
    fake = card()
    session = open_(files, "cuda", tmp_path)
    random = np.random.default_rng(0)

    def ask(times):
        for _ in range(times):
            session.logits(random.random((16, 1, 4, 4), np.float32))

    ask(30)
    fake.sessions[0].graphs = "stale"
    with pytest.raises(BadModel, match="a CUDA graph of the forward graph gives other answers"):
        ask(20)


def test_what_a_graph_answered_is_confirmed_by_one_pass_of_its_kernels_for_each_size_that_was_asked(
    card, files, task, tmp_path
):
    fake = card()
    session = open_(files, "cuda", tmp_path)
    for n in (16, 48, 16):
        session.logits(task[2][:n])
    forward = fake.sessions[0]
    for expected in (["-1"] * 2, []):
        forward.asked.clear()
        session.confirm()
        assert forward.asked == expected
    session.logits(task[2][:48])
    forward.asked.clear()
    session.confirm()
    assert forward.asked == ["-1"]


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("graph", ["forward", "gradient"])
def test_what_a_graph_answered_that_went_wrong_since_is_not_confirmed(card, files, task, tmp_path, graph, place):
    fake = card()
    session = open_(files, "cuda", tmp_path)
    answers(session, *asked(task, 20, place))
    session.confirm()
    fake.sessions[graph == "gradient"].graphs = "stale"
    x, loss = asked(task, 20, place)
    answers(session, 1 - x, loss)
    with pytest.raises(BadModel, match=f"a CUDA graph of the {graph} graph gives other answers.* in doubt") as caught:
        session.confirm()
    assert "another --out" in caught.value.hint


def test_what_a_graph_answered_before_memory_ran_out_is_held_to_its_kernels_too(card, files, task, tmp_path):
    fake = card()
    session = open_(files, "cuda", tmp_path)
    session.logits(task[2][:16])
    fake.sessions[0].graphs, fake.sessions[0].fitting = "stale", 16
    session.logits(1 - task[2][:16])
    with pytest.raises(BadModel, match="in doubt"):
        session.logits(task[2][:32])


def test_what_a_graph_answered_is_in_doubt_where_its_kernels_find_no_memory(card, files, task, tmp_path):
    fake = card()
    session = open_(files, "cuda", tmp_path)
    session.logits(task[2][:16])
    fake.sessions[0].fitting = 0
    with pytest.raises(BadModel, match=r"cannot be compared with its kernels again .*memory.* in doubt"):
        session.confirm()


@pytest.mark.parametrize("full", [False, True], ids=["unit after unit", "side by side"])
def test_a_graph_that_goes_wrong_within_an_attack_gives_no_verdict_and_leaves_no_unit_of_it(
    card, files, task, tmp_path, full
):
    """Every attack finds nothing from then on, since its points are answered as others were: a false pass."""
    fake = card()
    images = ImageSet("all", task[2], task[3], np.arange(len(task[3])))

    def suite(directory, stale_from):
        session, random = open_(files, "cuda", tmp_path), np.random.default_rng(0)
        went, original = iter(range(10_000)), session.loss_gradient
        session.logits(random.random((128, 1, 4, 4), np.float32))

        def counted(x, loss):
            if next(went) == stale_from:
                for each in fake.sessions[-2:]:
                    each.graphs = "stale"
            return original(x, loss)

        session.loss_gradient = counted
        target = Target(FixedSizes(BatchHalving(session), 128), images, 3, 128, full=full)
        plan = planned(target, ("fgsm", "pgd"))
        directory.mkdir()
        journal = Journal(directory, "0" * 64)
        try:
            run_suite(target, plan, eps=EPS, seed=0, keep_all=False, progress=Silent(), ledger=journal)
        finally:
            journal.close()
            session.close()
        return next(went)

    asked = suite(tmp_path / "sound", None)
    assert asked > 10
    with pytest.raises(BadModel, match="gives other answers than its kernels: the results are in doubt"):
        suite(tmp_path / "stale", 4)
    left = {path.name for path in (tmp_path / "stale" / "units").iterdir()}
    assert "clean-0.npz" in left
    assert not any("PGD" in name or "pgd" in name for name in left)
    assert any("pgd" in path.name for path in (tmp_path / "sound" / "units").iterdir())


def test_kernels_that_do_not_answer_twice_alike_are_not_captured(card, files, task, tmp_path, told):
    fake = card(graphs="shaky")
    session = open_(files, "cuda", tmp_path)
    session.logits(task[2])
    assert "without CUDA graphs: its kernels give different answers to the same batch" in told.text
    fake.sessions[0].asked.clear()
    session.logits(task[2])
    assert fake.sessions[0].asked == ["-1"]


def test_a_size_is_captured_once_and_replayed_from_then_on(card, files, task, tmp_path):
    fake = card()
    session = open_(files, "cuda", tmp_path)
    for _ in range(5):
        for n in (16, 48):
            session.logits(task[2][:n])
    forward = fake.sessions[0]
    assert [forward.asked.count(graph) for graph in ("-1", "1", "2")] == [6, 7, 7]  # two to try it, five as asked
    made = len(fake.values.made)
    session.logits(task[2][:48])
    assert len(fake.values.made) == made == 4  # an input and an output of each size


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_sizes_without_buffers_are_answered_too_and_are_not_captured(
    here, card, files, task, tmp_path, monkeypatch, place
):
    monkeypatch.setattr(binding, "MOST_SIZES", 2)
    fake = card()
    session = open_(files, "cuda", tmp_path)
    for n in (1, 2, 3, 4, 3):
        x, loss = asked(task, n, place)
        answer = session.logits(x)
        assert type(answer) is type(x)
        assert same([np.asarray(answer)], [here.logits(task[2][:n])])
        assert same(answers(session, x, loss), answers(here, *asked(task, n)))
    assert [sorted(each.captured) for each in fake.sessions] == [["1", "2"]] * 2


def test_no_graph_is_replayed_once_memory_ran_out(here, card, files, task, tmp_path):
    """What gives memory back after each run may give back what a captured graph works in."""
    fake = card()
    session = open_(files, "cuda", tmp_path)
    session.logits(task[2][:16])
    forward = fake.sessions[0]
    forward.fitting = 16
    with pytest.raises(OutOfMemory):
        session.logits(task[2][:32])
    forward.fitting, before = None, len(forward.asked)
    for n in (16, 32, 16):
        assert session.logits(task[2][:n]).tobytes() == here.logits(task[2][:n]).tobytes()
    assert set(forward.asked[before:]) == {"-1"}


def test_what_else_fails_on_a_gpu_is_a_bad_model(card, files, tmp_path):
    card()
    with pytest.raises(BadModel, match="the forward graph failed"):
        open_(files, "cuda", tmp_path).logits(np.zeros((2, 1, 5, 5), np.float32))


def test_the_tensorrt_provider_is_bound_and_captures_nothing(here, card, files, task, tmp_path):
    fake = card()
    session = open_(files, "tensorrt", tmp_path)
    assert session.logits(task[2]).tobytes() == here.logits(task[2]).tobytes()
    assert all("enable_cuda_graph" not in options for options in fake.opened)
    assert set(fake.sessions[0].asked) == {None}
    assert fake.values.made


def test_the_cpu_is_never_bound_nor_captured(here, task, monkeypatch):
    monkeypatch.setattr(binding, "_Buffers", lambda *given: pytest.fail("bound"))
    answers(here, *asked(task, 30))


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "cw", "fab-t", "square"])
def test_an_attack_on_tensors_finds_what_it_finds_on_arrays(here, card, files, task, tmp_path, provider, name):
    """The arithmetic of an attack stays where its session's arrays are; the points are the same to the bit."""
    if provider == "cuda":
        card()
    session = open_(files, "cuda", tmp_path) if provider == "cuda" else here
    attack = ATTACKS[name].fitted(3)
    short = {"steps": 10, "queries": 30}
    found = []
    for place in PLACES.values():
        n = np.arange(40)
        points = Points(place(task[2][:40]), one_hot(place(task[3][:40]), 3), task[3][:40], n, n)
        settings = {key: short.get(key, value) for key, value in attack.defaults.items()}
        oracle = Oracle(FixedSizes(session, 64), 64)
        found.append(attack.search(oracle, points, EPS, Noise(0, name), **settings))
    ours, theirs = found
    assert ours.broken.any()
    assert same([ours.x, ours.broken, ours.margin], [theirs.x, theirs.broken, theirs.margin])


def test_nothing_is_copied_to_the_host_between_an_attack_and_a_gpu(card, files, task, tmp_path, monkeypatch):
    card()
    session = open_(files, "cuda", tmp_path)
    x, loss = asked(task, 30, torch.from_numpy)
    monkeypatch.setattr(torch.Tensor, "__array__", lambda *given, **named: pytest.fail("copied to the host"))
    monkeypatch.setattr(torch.Tensor, "numpy", lambda *given, **named: pytest.fail("copied to the host"))
    for _ in range(2):
        assert isinstance(session.logits(x), torch.Tensor)
        assert {type(array) for array in session.loss_gradient(x, loss)} == {torch.Tensor}
