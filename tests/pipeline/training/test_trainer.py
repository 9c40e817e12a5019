from dataclasses import replace

import pytest
import torch

from pipeline.methods import METHODS
from pipeline.methods.search import search
from pipeline.models import build_network
from pipeline.models.layers import frozen
from pipeline.recipe.schema import load_recipe
from pipeline.training.precision import resolve
from pipeline.training.trainer import Trainer
from runtime.errors import BadRecipe, MissingEnvironment


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(16, 1, 28, 28, generator=generator), torch.arange(16) % 10


def trainer(seed=0, overrides=(), precision="fp32"):
    recipe = load_recipe("fashion-mini", ["search.steps=1", f"seed={seed}", *overrides])
    torch.manual_seed(seed)
    student, teacher = (build_network("resnet18", channels=1, classes=10, width=0.125) for _ in range(2))
    needed = frozen(teacher) if METHODS[recipe.method.name].needs_teacher else None
    return Trainer(recipe, student, needed, classes=10, precision=precision)


def steps(trainer, batch, count):
    return [trainer.step(*batch, number=number, steps_per_epoch=10, steps=20).item() for number in range(count)]


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_on_one_batch_falls(method, batch):
    labels = "method.adr.interpolation=[0.1, 0.1]"  # softer ones have more entropy than a loss can fall below
    losses = steps(trainer(overrides=[f"method.name={method}", "train.lr=0.02", labels]), batch, 12)
    assert losses[-1] < 0.75 * losses[0]


def test_bf16_learns_as_fp32_does(batch):
    """Within a step, not over steps: autocast keeps its copies of the weights until it is left."""
    overrides = ["method.name=pgd-at", "train.lr=0.02"]
    fp32, bf16 = (steps(trainer(overrides=overrides, precision=precision), batch, 8) for precision in ("fp32", "bf16"))
    assert bf16[-1] < 0.8 * bf16[0]
    assert bf16[-1] == pytest.approx(fp32[-1], rel=0.25)


@pytest.mark.parametrize(
    ("precision", "setting"), [("fp32", ("highest", False)), ("tf32", ("high", True)), ("bf16", ("highest", False))]
)
def test_the_gradient_of_the_weights_is_computed_in_the_precision_of_the_recipe(batch, precision, setting):
    """As torch.compile reads it too: PyTorch refuses to say it where old and new settings contradict each other."""
    run, seen = trainer(overrides=["method.name=pgd-at"], precision=precision), set()
    before = of_products()
    for weight in run.student.parameters():
        weight.register_hook(lambda gradient: seen.add(of_products()))
    steps(run, batch, 1)
    assert seen == {setting}
    assert of_products() == before


@pytest.mark.parametrize(
    ("overrides", "precision", "searched", "learned"),
    [
        ([], "fp32", False, False),
        ([], "bf16", True, True),
        (["search.precision=bf16"], "fp32", True, False),
        (["search.precision=fp32"], "bf16", False, True),
    ],
)
def test_the_search_has_a_precision_of_its_own(batch, overrides, precision, searched, learned):
    run = trainer(overrides=["method.name=adaad", *overrides], precision=precision)
    seen = {"search": set(), "loss": set()}
    for name, network in (("search", run.folded), ("loss", run.student)):
        network.register_forward_hook(lambda _, __, logits, of=name: seen[of].add(logits.dtype == torch.bfloat16))
    steps(run, batch, 1)
    assert seen == {"search": {searched}, "loss": {learned}}
    assert run.search_precision == ("bf16" if searched else "fp32")


@pytest.mark.parametrize("method", METHODS)
def test_what_the_loss_knows_of_the_teacher_is_in_its_own_precision(method, batch, monkeypatch):
    """RSLAD's search asks for T(x) too, in bf16; the loss must not learn from that."""
    run, seen = trainer(overrides=[f"method.name={method}", "search.precision=bf16"]), []

    def loss(view, points):
        if run.teacher is not None:
            seen.append(view.teacher_clean.dtype)
        return METHODS[method].loss(view, points)

    run.method = replace(run.method, loss=loss)
    steps(run, batch, 1)
    assert set(seen) <= {torch.float32}
    assert bool(seen) == (run.method.needs_teacher or run.method.averages)


def of_products():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("device", "capability", "auto"), [("cuda", (8, 0), "tf32"), ("cuda", (7, 5), "fp32"), ("cpu", None, "fp32")]
)
def test_tf32_is_where_the_device_has_it_and_refused_where_not(device, capability, auto, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    device = torch.device(device)
    assert resolve("auto", device) == auto
    assert resolve("bf16", device) == "bf16"
    if auto == "tf32":
        assert resolve("tf32", device) == "tf32"
    else:
        with pytest.raises(MissingEnvironment, match="TF32 needs") as caught:
            resolve("tf32", device)
        assert "auto" in caught.value.hint


def test_two_equal_seeds_give_equal_bits_and_another_seed_does_not(batch):
    runs = [trainer(seed) for seed in (1, 1, 2)]
    for run in runs:
        steps(run, batch, 3)
    first, again, other = (run.student.state_dict() for run in runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def batches_seen(student):
    (count,) = {int(count) for name, count in student.state_dict().items() if "num_batches" in name}
    return count


def statistics(student):
    return [buffer.clone() for name, buffer in student.named_buffers() if "running" in name]


@pytest.fixture
def watched(monkeypatch):
    """What the search of the trainer did to the student's statistics and saw of it, one entry a step."""
    entries = []

    def watching(objective, view, *arguments):
        computed = []
        hooks = [parameter.register_hook(computed.append) for parameter in watching.student.parameters()]
        entry = {"view": view, "before": statistics(watching.student), "computed": computed}
        points = search(objective, view, *arguments)
        entry |= {"after": statistics(watching.student), "seen": batches_seen(watching.student)}
        entry["left"] = [parameter.grad for parameter in watching.student.parameters() if parameter.grad is not None]
        for hook in hooks:
            hook.remove()
        entries.append(entry)
        return points

    monkeypatch.setattr("pipeline.training.trainer.search", watching)

    def run(method, batch, *, count):
        run = trainer(overrides=[f"method.name={method}", "search.steps=2"])
        watching.student = run.student
        steps(run, batch, count)
        return run, entries

    return run


@pytest.mark.parametrize("method", METHODS)
def test_the_search_moves_the_running_statistics_where_the_method_searches_in_train_mode_and_only_there(
    method, batch, watched
):
    _, entries = watched(method, batch, count=2)
    moves = METHODS[method].search_mode == "train"
    for entry in entries:
        moved = any(not torch.equal(a, b) for a, b in zip(entry["before"], entry["after"], strict=True))
        assert moved == moves
    assert entries[0]["seen"] == (2 if moves else 0)  # one batch a step of the search


@pytest.mark.parametrize("method", METHODS)
def test_the_search_computes_and_leaves_no_gradient_of_a_weight_and_the_student_learns(method, batch, watched):
    run, entries = watched(method, batch, count=1)
    assert entries[0]["computed"] == entries[0]["left"] == []
    assert all(parameter.grad is not None for parameter in run.student.parameters())
    assert run.student.training


@pytest.mark.parametrize("method", METHODS)
def test_the_search_never_goes_through_the_network_where_the_gradients_of_all_processes_meet(method, batch):
    def forwards(count):
        run, asked = trainer(overrides=[f"method.name={method}", f"search.steps={count}"]), []
        run.learning.register_forward_pre_hook(lambda *_: asked.append(1))
        steps(run, batch, 1)
        return len(asked)

    assert forwards(3) == forwards(0) > 0


def test_the_second_phase_is_reached_after_its_fraction_of_all_steps(batch, watched):
    _, entries = watched("iad", batch, count=7)
    options = entries[0]["view"].options
    assert [entry["view"].progress >= options.second_phase for entry in entries] == [False] * 6 + [True]


def test_only_the_outer_step_moves_the_running_statistics_of_the_default_recipe(batch):
    run = trainer()
    steps(run, batch, 3)
    assert batches_seen(run.student) == 3
    assert run.student.training


def test_the_teacher_never_changes(batch):
    run = trainer()
    assert run.teacher is not None
    before = {name: tensor.clone() for name, tensor in run.teacher.state_dict().items()}
    steps(run, batch, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.teacher.state_dict().items())


def test_the_reduction_scales_the_loss(batch):
    batchmean = steps(trainer(), batch, 1)[0]
    mean = steps(trainer(overrides=["train.reduction=mean"]), batch, 1)[0]
    assert batchmean == pytest.approx(10 * mean, rel=1e-5)


def test_every_step_takes_the_rate_of_its_beginning(batch):
    run = trainer(overrides=["train.epochs=2", "train.schedule=one-cycle", "train.warmup=0.5", "train.lr=0.4"])
    rates = []
    for number in range(20):
        run.step(*batch, number=number, steps_per_epoch=10, steps=20)
        rates.append(run.optimiser.param_groups[0]["lr"])
    assert rates[:7] == pytest.approx([0, 0.08, 0.16, 0.24, 0.32, 0.4, 0.4 * 14 / 15])
    assert rates[-1] == pytest.approx(0.4 / 15)


def test_nesterov_looks_ahead_by_the_momentum(batch):
    """The first step: w - lr (g + m g), where plain momentum takes w - lr g."""
    moved = []
    for nesterov in ("false", "true"):
        run = trainer(overrides=[f"train.nesterov={nesterov}", "train.weight_decay=0", "train.lr=0.5"])
        before = [weight.detach().clone() for weight in run.student.parameters()]
        steps(run, batch, 1)
        moved.append([weight.detach() - old for weight, old in zip(run.student.parameters(), before, strict=True)])
    for plain, ahead in zip(*moved, strict=True):
        torch.testing.assert_close(ahead, 1.9 * plain, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_labels_are_smoothed_in_the_loss_and_never_in_the_search(method, batch, monkeypatch):
    """The searched points are the same to the bit; the loss moves where a label is in it, and only there."""
    overrides, known = [f"method.name={method}"], METHODS[method]
    if not known.has_labels:
        with pytest.raises(BadRecipe, match=r"label_smoothing: the loss of .* has no label"):
            trainer(overrides=[*overrides, "train.label_smoothing=0.1"])
        return
    points = []

    def kept(*arguments):
        points.append(search(*arguments))
        return points[-1]

    monkeypatch.setattr("pipeline.training.trainer.search", kept)
    hard, smooth = (
        steps(trainer(overrides=[*overrides, f"train.label_smoothing={s}", "search.steps=3"]), batch, 1)[0]
        for s in (0.0, 0.3)
    )
    assert torch.equal(*points)
    assert abs(hard - smooth) > 1e-3
