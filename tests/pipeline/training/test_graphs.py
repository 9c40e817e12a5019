"""A captured step, replayed operator by operator, against the step as it is; and when a step stays as it is."""

import contextlib
import hashlib
import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import METHODS
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.training.devices import launch
from pipeline.training.graphs import MOST, Replayed, recorder_of
from pipeline.training.trainer import Trainer
from runtime.errors import BadRecipe
from tests.pipeline.runs.small_runs import assert_equal_bits, small
from tests.pipeline.training.recorded import Recorded, Watching

STEPS = 6
WORKS = 3
"""Of a step: the folding, the search and the outer step."""


@pytest.fixture
def told():
    return []


def batch_of(count=12):
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return images.to(memory_format=torch.channels_last), torch.arange(count) % 4


def trainer(recorder, *overrides, precision="fp32", arch="resnet18"):
    recipe = load_recipe("fashion-mini", ["search.steps=2", "train.batch=12", "train.lr=0.02", *overrides])
    torch.manual_seed(0)
    student, teacher = (
        build_network(arch, channels=1, classes=4, width=0.0625, **depth)
        for arch, depth in ((arch, {}), ("wideresnet", {"depth": 10}))
    )
    student = student.to(memory_format=torch.channels_last)
    needed = frozen(teacher) if METHODS[recipe.method.name].needs_teacher else None
    return Trainer(recipe, student, needed, classes=4, precision=precision, recorder=recorder)


def steps(run, count=STEPS, within=contextlib.nullcontext):
    losses = []
    for number in range(count):
        with within():
            loss = run.step(*batch_of(), number=number, steps_per_epoch=5, steps=10)
        losses.append(loss.item())
    return losses


def state(run):
    """All that a step changes."""
    kept = dict(run.student.state_dict())
    kept |= {
        f"momentum {i}": run.optimiser.state[weight]["momentum_buffer"]
        for i, weight in enumerate(run.student.parameters())
    }
    return kept | (run.average.state_dict(prefix="average.") if run.average is not None else {})


def assert_replays_to_the_same_bits(recorder, *overrides, within=contextlib.nullcontext, **options):
    eager, replayed = (trainer(how, *overrides, **options) for how in (None, recorder))
    assert steps(eager, within=within) == steps(replayed)
    assert_equal_bits(state(eager), state(replayed))


@pytest.mark.parametrize("method", METHODS)
def test_a_replayed_step_is_the_step_as_it_is_bit_for_bit_through_both_phases(method):
    """From step 3 of 10 on introspection has joined; the learning rate falls, and the weights are averaged."""
    recorder = Recorded()
    schedule = ["train.schedule=cosine", "train.epochs=2", "train.ema=0.9", "train.nesterov=true"]
    assert_replays_to_the_same_bits(recorder, f"method.name={method}", *schedule)
    introspective = method in ("iad", "adaiad")
    folds = METHODS[method].search_mode == "eval"
    phased = 2 * (2 if introspective else 1)  # the search and the outer step, anew in the second phase
    assert recorder.asked.count("warm up") == recorder.asked.count("capture") == phased + folds
    assert recorder.asked.count("replay") == STEPS * (2 + folds) - phased - folds


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].needs_teacher])
def test_a_replayed_step_with_igdm_is_the_step_as_it_is_bit_for_bit(method):
    """Its weight grows with every step, and must not stay at that of the capture."""
    assert_replays_to_the_same_bits(Recorded(), f"method.name={method}", "method.igdm=20")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replayed_step_with_perturbed_weights_is_the_step_as_it_is_bit_for_bit(precision):
    assert_replays_to_the_same_bits(Recorded(), "train.awp=0.01", within=Watching, precision=precision)


@pytest.mark.parametrize(
    ("arch", "method", "search"),
    [("resnet18", "rslad", "bf16"), ("resnet18", "iad", "fp32"), ("mobilenet_v2", "adaad", "bf16")],
)
def test_a_replayed_step_is_the_step_as_it_is_in_bf16_too(arch, method, search):
    """Both are watched: a tensor that someone keeps is not added to in place, and oneDNN rounds by its strides."""
    overrides = [f"method.name={method}", f"search.precision={search}"]
    assert_replays_to_the_same_bits(Recorded(), *overrides, within=Watching, precision="bf16", arch=arch)


def test_a_step_is_warmed_up_then_captured_then_replayed():
    run = trainer(recorder := Recorded())
    for expected in (["warm up"] * WORKS, ["capture", "replay"] * WORKS, ["replay"] * WORKS):
        recorder.asked.clear()
        steps(run, 1)
        assert recorder.asked == expected


@pytest.mark.parametrize("method", METHODS)
def test_a_step_reads_no_value_of_the_device_and_brings_it_none(method):
    run = trainer(
        None, f"method.name={method}", "train.label_smoothing=0.1" if METHODS[method].has_labels else "seed=0"
    )
    steps(run, 1)
    with Watching() as watched:
        run.step(*batch_of(), number=1, steps_per_epoch=5, steps=10)
    assert len(watched.calls) > 100


def test_the_outer_step_of_a_batch_in_parts_is_not_captured_and_the_rest_is(caplog):
    assert_replays_to_the_same_bits(recorder := Recorded(), "train.micro_batches=3")
    assert recorder.asked.count("capture") == 2
    assert recorder.asked.count("replay") == (STEPS - 1) + (STEPS * 3 - 1)
    assert "the outer step runs without a CUDA graph: it adds up the gradients of several parts" in caplog.messages


def test_a_batch_that_does_not_fit_lets_the_graphs_go_and_goes_on_in_parts(monkeypatch):
    """The third step finds no room: as if it had been taken in two parts, and so had all that follow."""
    runs = []
    for recorder in (None, Recorded()):
        run, original = trainer(recorder), Trainer._accumulate
        calls = itertools.count()

        def accumulate(self, *rest, calls=calls, original=original):
            if next(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return original(self, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_accumulate", accumulate)
            runs.append((steps(run), state(run), run.parts))
    assert runs[0][0] == runs[1][0]
    assert_equal_bits(runs[0][1], runs[1][1])
    assert runs[1][2] == 2


def test_on_the_cpu_nothing_is_captured():
    assert recorder_of(torch.device("cpu")) is None


def doubled(values: Tensor) -> tuple[Tensor, ...]:
    return (values * 2,)


def test_outputs_are_of_the_latest_arguments_and_in_one_place(told):
    work = Replayed("it", Recorded(), told.append)
    values = [torch.full((3,), float(number)) for number in range(4)]
    answers = [work(doubled, (value,))[0] for value in values]
    assert [answer.tolist() for answer in answers[:2]] == [[0.0] * 3, [6.0] * 3]
    assert answers[1] is answers[2] is answers[3]
    assert told == []


@pytest.mark.parametrize("other", [torch.zeros(4), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 2).t()[0]])
def test_other_shapes_types_and_strides_begin_anew(other, told):
    work = Replayed("it", recorder := Recorded(), told.append)
    for value in (torch.zeros(2), torch.ones(2), other + 1, other + 2):
        assert torch.equal(work(doubled, (value,))[0], 2 * value)
    assert recorder.asked == ["warm up", "capture", "replay"] * 2 if other.stride() == (1,) else recorder.asked


def test_another_phase_begins_anew(told):
    work = Replayed("it", recorder := Recorded(), told.append)
    for phase in (False, False, True, True):
        (answer,) = work(lambda value, by=1 + phase: (value * by,), (torch.ones(2),), phase)
        assert answer.tolist() == [1.0 + phase] * 2
    assert recorder.asked == ["warm up", "capture", "replay"] * 2


def test_shapes_that_change_again_and_again_end_the_captures_with_a_reason(told):
    work = Replayed("the search", recorder := Recorded(), told.append)
    for count in range(1, MOST + 4):
        assert work(doubled, (torch.ones(count),))[0].tolist() == [2.0] * count
    assert recorder.asked == ["warm up"] * MOST
    assert told == [f"the search runs without a CUDA graph: after {MOST} captures its shapes change again"]


class Refusing(Recorded):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def capture(self, work):
        super().capture(work)
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory is short"),
        (RuntimeError("CUDA error: operation not permitted\nmore"), "CUDA error: operation not permitted"),
    ],
)
def test_what_cannot_be_captured_runs_as_it_is_to_the_same_bits_and_the_log_says_why(error, reason, caplog):
    assert_replays_to_the_same_bits(Refusing(error), "method.name=iad")
    for work in ("the search", "the outer step"):
        assert caplog.messages.count(f"{work} runs without a CUDA graph: {reason}") == 1


def test_what_reads_a_value_cannot_be_captured(told):
    work = Replayed("it", Recorded(), told.append)
    for number in range(3):
        (answer,) = work(lambda value: (value * value.sum().item(),), (torch.full((2,), float(number)),))
        assert answer.tolist() == [2.0 * number**2] * 2
    assert len(told) == 1
    assert "not permitted" in told[0]


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: torch.rand(()).item()])
def test_work_that_draws_numbers_on_the_cpu_is_not_captured_since_a_replay_would_repeat_them(draw, told):
    work = Replayed("it", recorder := Recorded(), told.append)
    answers = {work(lambda value: (value * draw(),), (torch.ones(1),))[0].item() for _ in range(4)}
    assert len(answers) == 4
    assert recorder.asked == ["warm up"]
    assert told == ["it runs without a CUDA graph: it draws random numbers on the CPU"]


class Skipping(nn.Module):
    """A student that skips a layer at the given of its training passes, over and over."""

    def __init__(self, skips):
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.skips, self.passes = skips, 0

    def forward(self, x):
        x = self.stem(x.flatten(1))
        if self.training:
            self.passes += 1
        if not (self.training and self.skips[self.passes % len(self.skips)]):
            x = x + self.block(x).relu()
        return self.head(x)


@pytest.mark.parametrize("skips", [(False, True), (True, False)])
def test_a_step_that_skips_a_layer_is_not_captured_so_that_no_replay_skips_it_for_ever(skips, caplog):
    """The layer is skipped at the first step, which warms up, or at the second, which is captured."""
    recipe = load_recipe("fashion-mini", ["method.name=pgd-at", "search.steps=1", "train.batch=12"])
    run = Trainer(recipe, Skipping(skips), None, classes=4, precision="fp32", recorder=Recorded())
    steps(run, 2)
    assert caplog.messages.count("the outer step runs without a CUDA graph: the student skips layers at random") == 1
    learned = []
    for _ in range(2):
        steps(run, 1)
        learned.append(bool(run.student.block.weight.grad.any()))
    assert sorted(learned) == [False, True]


def skips_in_each_process(fabric, directory, parts):
    recipe = small(directory, "train.batch=12", f"train.micro_batches={parts}")
    run = Trainer(recipe, Skipping((True, False)), None, classes=4, precision="fp32", fabric=fabric)
    return steps(run, 4)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_several_devices_refuse_a_student_that_skips_a_layer(parts, tmp_path):
    """Of two parts, the second skips it, by which PyTorch would wait for its gradient."""
    with pytest.raises(BadRecipe, match="skips layers at random") as raised:
        launch(skips_in_each_process, tmp_path, parts, devices=2)
    assert "one device" in raised.value.hint


def test_the_stand_in_shows_what_a_work_reads_of_python_after_its_capture(told):
    """Else equal bits would say nothing."""
    work, moved = Replayed("it", Recorded(), told.append), nn.Parameter(torch.ones(2))
    answers = []
    for factor in (1, 2, 3):
        answers.append(work(lambda value, by=factor: (value * by * moved.detach(),), (torch.ones(2),))[0].tolist())
        with torch.no_grad():
            moved.add_(1)
    assert answers == [[1.0, 1.0], [2 * 2.0] * 2, [2 * 3.0] * 2]


def in_each_process(fabric, directory, recorded):
    """Return losses, a digest of the state and what was captured, of the first process: little, as a pipe takes."""
    recorder = Recorded() if recorded else None
    torch.manual_seed(0)
    student = build_network("resnet18", channels=1, classes=4, width=0.0625)
    teacher = build_network("resnet18", channels=1, classes=4, width=0.0625)
    recipe = small(directory, "method.name=adaad", "train.batch=12")
    run = Trainer(recipe, student, frozen(teacher), classes=4, precision="fp32", fabric=fabric, recorder=recorder)
    losses = steps(run, 4)
    digest = hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in state(run).values()))
    return losses, digest.hexdigest(), recorder.asked if recorder else []


@pytest.mark.slow
def test_every_process_captures_its_search_and_the_gradients_meet_outside_of_it(tmp_path):
    (eager, its, _), (replayed, ours, asked) = (
        launch(in_each_process, tmp_path, recorded, devices=2) for recorded in (False, True)
    )
    assert (eager, its) == (replayed, ours)
    assert asked == ["warm up"] * 2 + ["capture", "replay"] * 2 + ["replay"] * 4
