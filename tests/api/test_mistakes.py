"""Mistakes that people make with arrays, labels and networks end in an error that says what to do."""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgeproof as ep
from runtime.errors import BadData, BadModel, UsageFault
from runtime.spec import Gate
from tests.tiny import FORWARD, graph, linear_task

EPS = 0.03
WEIGHT, BIAS, X, Y = linear_task()
X, Y = X[:12], Y[:12]
MODEL = graph(FORWARD, WEIGHT, BIAS)
TENSOR = torch.from_numpy(X)


def network():
    net = nn.Sequential(nn.Flatten(), nn.Linear(X[0].size, len(BIAS)))
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(np.asarray(WEIGHT)).reshape(net[1].weight.shape))
        net[1].bias.copy_(torch.from_numpy(np.asarray(BIAS)))
    return net


def verified(model, x, y, out):
    ep.verify(model, x, y, eps=EPS, attacks="fgsm", no_gate=True)


def attacked(model, x, y, out):
    ep.attack(model, x, y, eps=EPS, attack="fgsm")


def exported(model, x, y, out):
    ep.export(network() if isinstance(model, bytes) else model, evaluation=(x, y), out=out / "bundle", eps=EPS)


CALLS = pytest.mark.parametrize("call", [verified, attacked, exported])


def one_hot(labels):
    return np.eye(len(BIAS))[labels]


ACCEPTED = {
    "one-hot labels": lambda: (X, one_hot(Y)),
    "a list of labels": lambda: (X, Y.tolist()),
    "float64": lambda: (X.astype(np.float64), Y),
    "channels last": lambda: (np.moveaxis(X, 1, -1), Y),
    "a tensor that asks for its gradient": lambda: (TENSOR.clone().requires_grad_(), torch.from_numpy(Y)),
}


@pytest.mark.parametrize("given", ACCEPTED.values(), ids=ACCEPTED)
def test_usual_forms_of_arrays_are_one_and_the_same(given):
    x, y = given()
    plain = ep.attack(MODEL, X, Y, eps=EPS, attack="fgsm")
    np.testing.assert_array_equal(ep.attack(MODEL, x, y, eps=EPS, attack="fgsm"), plain)


def test_bfloat16_is_read_as_the_numbers_it_holds():
    short = TENSOR.bfloat16()
    points = ep.attack(MODEL, short, Y, eps=EPS, attack="fgsm")
    np.testing.assert_array_equal(points, ep.attack(MODEL, short.float(), Y, eps=EPS, attack="fgsm"))


def with_nan():
    x = X.copy()
    x[0, 0, 0, 0] = np.nan
    return x


REFUSED = {
    "images of 0 to 255 in floats": (lambda: (255 * X, Y), "values outside", "255"),
    "images of 0 to 255 in int64": (lambda: ((255 * X).astype(np.int64), Y), "int64", "uint8"),
    "normalised images": (lambda: ((X - 0.5) / 0.25, Y), "values outside", "normalisation"),
    "NaN": (lambda: (with_nan(), Y), "NaN", "scale"),
    "logits in place of labels": (lambda: (X, one_hot(Y) + 0.1), "labels have shape", "number of a class"),
    "labels from 1": (lambda: (X, Y + 1), "has label 3, but there are 3 classes", "from 0"),
    "labels below 0": (lambda: (X, Y - 1), "labels have -1", "from 0"),
    "labels in floats": (lambda: (X, Y.astype(np.float32)), "labels are float32", "y.astype('int64')"),
    "labels in words": (lambda: (X, Y.astype(str)), "labels are <U", "integers"),
    "a label too few": (lambda: (X, Y[:-1]), "labels are int64 of shape \\(11,\\)", "12"),
    "images and labels in the other order": (lambda: (Y, X), "shape \\(12,\\)", "N,C,H,W"),
    "no image": (lambda: (X[:0], Y[:0]), "shape \\(0,", "at least one"),
    "ragged lists": (lambda: ([[1, 2], [3]], Y), "no array", "numpy"),
    "objects": (lambda: (np.array([None] * len(Y)), Y), "no array of numbers", "numpy"),
    "the path of a file": (lambda: ("test.npz", Y), "are the text 'test.npz'", "numpy.load"),
    "a tensor without data": (lambda: (TENSOR.to("meta"), Y), "no array", "tensor"),
    "a sparse tensor": (lambda: (TENSOR.to_sparse(), Y), "no array", "tensor"),
}


@CALLS
@pytest.mark.parametrize(("given", "said", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_are_no_images_or_labels_is_refused_by_its_name(call, given, said, hint, tmp_path):
    with pytest.raises(BadData, match=said) as caught:
        call(MODEL, *given(), tmp_path)
    assert ("evaluation" if call is exported else "x, y") in caught.value.message
    assert hint in caught.value.hint


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return self.inner(x), x.mean()


class Named(Pair):
    def forward(self, x):
        return {"logits": self.inner(x)}


class Pixels(Pair):
    def forward(self, x):
        return self.inner(x)[:, :, None]


class OneByOne(Pair):
    def forward(self, x):
        return self.inner(x.reshape(1, *x.shape[1:]))


NETWORKS = {
    "of single images": (OneByOne, "does not take images", "B is any number"),
    "a tuple": (Pair, "answers with a tuple", "logits"),
    "a dict": (Named, "answers with a dict", "logits"),
    "logits of each pixel": (Pixels, "with shape", "logits"),
    "of float64": (lambda: network().double(), "computes in torch.float64", "float()"),
    "of another size": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(99, 3)),
        "does not take images",
        "channels first",
    ),
}


@CALLS
@pytest.mark.parametrize(("make", "said", "hint"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_that_gives_no_logits_is_refused(call, make, said, hint, tmp_path):
    with pytest.raises(BadModel, match=said) as caught:
        call(make(), X, Y, tmp_path)
    assert hint in caught.value.hint


@CALLS
@pytest.mark.parametrize(
    "model", [None, 3, network().state_dict(), nn.Linear, len], ids=lambda each: type(each).__name__
)
def test_what_is_no_model_is_refused_with_what_one_is(call, model, tmp_path):
    with pytest.raises((UsageFault, BadModel)) as caught:
        call(model, X, Y, tmp_path)
    assert "nn.Module" in caught.value.hint


def test_a_network_in_training_mode_is_attacked_as_it_answers_when_it_is_deployed():
    net = nn.Sequential(nn.Dropout(0.5), *network())
    shown = ep.attack(net.train(), X, Y, eps=EPS, attack="fgsm")
    assert net.training
    np.testing.assert_array_equal(shown, ep.attack(copy.deepcopy(net).eval(), X, Y, eps=EPS, attack="fgsm"))


@pytest.mark.parametrize(
    "call",
    [
        lambda out: ep.verify(MODEL, X, Y, eps=8),
        lambda out: ep.attack(MODEL, X, Y, eps=8),
        lambda out: ep.export(network(), evaluation=(X, Y), eps=8, out=out),
        lambda out: ep.methods.PGDAT(network(), eps=8),
    ],
    ids=["verify", "attack", "export", "methods"],
)
def test_an_eps_of_8_is_asked_back(call, tmp_path):
    with pytest.raises(UsageFault, match="eps is 8") as caught:
        call(tmp_path / "bundle")
    assert "8/255" in caught.value.hint


def test_a_gate_of_45_is_asked_back(tmp_path):
    with pytest.raises(UsageFault, match="fail_under is 45") as caught:
        ep.verify(MODEL, X, Y, fail_under=45)
    assert "0.45" in caught.value.hint
    with pytest.raises(UsageFault, match="fail_under is 45"):
        ep.export(network(), evaluation=(X, Y), out=tmp_path / "bundle", fail_under=45)


def test_a_drop_that_forbids_nothing_is_asked_back(tmp_path):
    for call in (lambda: ep.verify(MODEL, X, Y, max_drop=1), lambda: made(tmp_path, max_drop=1)):
        with pytest.raises(UsageFault, match="max_drop is 1") as caught:
            call()
        assert "0.01" in caught.value.hint


def test_errors_name_arguments_and_no_options():
    with pytest.raises(BadData) as caught:
        ep.verify(MODEL, np.zeros((3, 4, 4, 4), np.uint8), Y[:3])
    assert caught.value.hint == "give layout='nchw' or layout='nhwc'"
    with pytest.raises(UsageFault) as caught:
        ep.verify(MODEL, X, Y, fail_under=0.4, no_gate=True)
    assert str(caught.value) == "no_gate contradicts fail_under and max_drop"


def test_a_bundle_is_judged_as_export_returns_it(tmp_path):
    bundle = ep.export(network(), evaluation=(X, Y), out=tmp_path / "bundle", eps=EPS)
    assert ep.verify(bundle, attacks="fgsm").clean_accuracy == ep.verify(bundle.path, attacks="fgsm").clean_accuracy
    assert bundle.manifest.gate == Gate()


def trained(x, y, student=None, teacher=None):
    method = ep.methods.AdaAD(student or network(), teacher or network(), steps=1)
    return method.loss(x, y)


CALIBRATED = {"precisions": "int8", "calibration": (X, Y)}


def made(out, **settings):
    return ep.export(network(), **{"evaluation": (X, Y), "out": out / "bundle", "eps": EPS, **settings})


WRONG_ARGUMENTS = {
    "^verify: too many": lambda out: ep.verify(MODEL, X, Y, EPS),
    "^attack: missing": lambda out: ep.attack(MODEL, X),
    "mean": lambda out: ep.verify(MODEL, X, Y, mean=".5,.5,.5"),
    "std": lambda out: ep.verify(MODEL, X, Y, std=[[1], [1, 2]]),
    "classes has 0": lambda out: ep.verify(MODEL, X, Y, classes=range(3)),
    "classes is 3": lambda out: made(out, classes=3),
    "against: .* is not a directory": lambda out: ep.verify(MODEL, X, Y, against=__file__),
    "the images are 3 x 4 x 4": lambda out: ep.verify(MODEL, np.repeat(X, 3, axis=1), Y),
    "gradient": lambda out: ep.verify(MODEL, X, Y, gradient="nope"),
    "layout": lambda out: ep.verify(MODEL, X, Y, layout="nchv"),
    "n": lambda out: ep.verify(network(), X, Y, n=0),
    "seed": lambda out: ep.verify(MODEL, X, Y, seed=-1),
    "classes": lambda out: ep.verify(MODEL, X, Y, classes=["a"]),
    "classes are": lambda out: ep.verify(MODEL, X, Y, classes="abc"),
    "trust": lambda out: ep.verify(made(out), trust=out / "nothing.pem"),
    "against": lambda out: ep.verify(MODEL, X, Y, against=out / "nothing"),
    "mean, std": lambda out: ep.verify(network(), X, Y, mean=0.5),
    "^x has images": lambda out: ep.verify(made(out), X[:, :, :3], Y),
    "ships": lambda out: made(out, ships="fp16"),
    "key": lambda out: made(out, key=out / "nothing.pem"),
    "name": lambda out: made(out, name="a b"),
    "version": lambda out: made(out, version=0),
    "keep_fp16": lambda out: made(out, keep_fp16=["a"]),
    "^calibration: every image": lambda out: made(out, **CALIBRATED),
    "int8": lambda out: made(out, precisions="int8"),
    "precisions": lambda out: made(out, precisions=()),
    "the images of calibration": lambda out: made(out, precisions="int8", calibration="train.npz"),
    "reduction": lambda out: ep.methods.PGDAT(network(), reduction="men"),
    "start": lambda out: ep.methods.PGDAT(network(), start="publishd"),
    "adaad takes a teacher": lambda out: ep.methods.AdaAD(network()),
}


@pytest.mark.parametrize(("said", "call"), WRONG_ARGUMENTS.items(), ids=WRONG_ARGUMENTS)
def test_a_wrong_argument_is_refused_by_its_name_and_no_option_is_spoken_of(said, call, tmp_path):
    with pytest.raises((UsageFault, BadData), match=said.removesuffix(" are")) as caught:
        call(tmp_path)
    assert not re.search("--[a-z]", f"{caught.value.message} {caught.value.hint}")
    assert caught.value.hint or "did you mean" in caught.value.message or "greater than" in caught.value.message
    assert not (tmp_path / "bundle" / "manifest.json").exists() or said in ("trust", "^x has images")


def test_classes_that_are_none_are_as_good_as_left_out():
    assert repr(ep.verify(MODEL, X, Y, classes=None, eps=EPS, attacks="fgsm"))


def test_a_directory_that_is_not_empty_is_refused_by_the_argument_that_names_it(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "kept").touch()
    for call in (lambda: made(tmp_path), lambda: ep.verify(MODEL, X, Y, out=tmp_path / "bundle")):
        with pytest.raises(UsageFault, match="not empty") as caught:
            call()
        assert caught.value.hint == "remove it, or give another directory as out"


def test_a_list_of_calibration_images_is_an_array_of_them(tmp_path):
    bundle = made(tmp_path, precisions="int8", calibration=list(1 - X), keep_fp16=())
    assert "int8" in bundle.manifest.graphs


@pytest.mark.parametrize("at", ["image", "logits"])
def test_a_network_that_cuts_its_gradient_is_refused(tmp_path, at):
    class Cut(Pair):
        def forward(self, x):
            return self.inner(x.detach()) if at == "image" else self.inner(x).detach()

    with pytest.raises(BadModel, match="no gradient") as caught:
        ep.export(Cut(), evaluation=(X, Y), out=tmp_path / "bundle")
    assert "detach()" in caught.value.hint


def test_a_number_of_numpy_normalises_all_channels():
    given = {"eps": EPS, "attacks": "fgsm", "seed": 0}
    of_numpy = ep.verify(MODEL, X, Y, mean=np.float32(0.5), std=np.float32(0.25), **given)
    assert of_numpy.clean_accuracy == ep.verify(MODEL, X, Y, mean=0.5, std=0.25, **given).clean_accuracy


def test_grey_images_of_a_model_of_colours_need_channels_and_no_other_size(tmp_path):
    colours = nn.Sequential(nn.Conv2d(3, 3, 4), nn.Flatten())
    bundle = ep.export(colours, evaluation=(np.repeat(X, 3, axis=1), Y), out=tmp_path / "bundle")
    with pytest.raises(BadData, match="the images are 1 x 4 x 4") as caught:
        ep.verify(bundle.path / "model.fp32.onnx", X, Y)
    assert "channels" in caught.value.hint
    assert "resize" not in caught.value.hint


def test_errors_name_no_file_that_the_caller_does_not_know():
    with pytest.raises(BadModel, match=r"^model\.onnx is not an ONNX model"):
        ep.verify(b"no model", X, Y)


def test_a_verdict_on_a_model_that_guesses_says_where_to_look():
    wrong = (Y + 1) % len(BIAS)
    shown = repr(ep.verify(MODEL, X, wrong, eps=EPS, attacks="fgsm"))
    assert "hint: clean accuracy is 0.0 %" in shown
    assert "normalisation" in shown
    assert "hint" not in repr(
        ep.verify(MODEL, *[np.concatenate([each] * 9) for each in (X, Y)], eps=EPS, attacks="fgsm")
    )


LABELS = torch.from_numpy(Y)
IN_TRAINING = {
    "images of 0 to 255": (lambda: trained(255 * TENSOR, LABELS), BadData, "values from"),
    "bytes": (lambda: trained((255 * TENSOR).byte(), LABELS), BadData, "torch.uint8"),
    "one-hot labels": (lambda: trained(TENSOR, F.one_hot(LABELS)), BadData, "labels torch.int64 of shape"),
    "labels in floats": (lambda: trained(TENSOR, LABELS.float()), BadData, "labels torch.float32"),
    "labels from 1": (lambda: trained(TENSOR, LABELS + 1), BadData, "labels go from 1 to 3"),
    "float64": (lambda: trained(TENSOR.double(), LABELS), BadModel, "computes in torch.float32"),
    "arrays": (lambda: trained(X, LABELS), BadData, "images are of type ndarray"),
    "arrays of labels": (lambda: trained(TENSOR, Y), BadData, "labels are of type ndarray"),
    "no student": (lambda: trained(TENSOR, LABELS, "net"), BadModel, "the student is of type str"),
    "a class of teachers": (lambda: trained(TENSOR, LABELS, teacher=nn.Linear), BadModel, "the teacher is the class"),
    "another device": (lambda: trained(TENSOR.to("meta"), LABELS), BadData, "images on meta"),
    "channels last": (
        lambda: trained(TENSOR.permute(0, 2, 3, 1), LABELS, nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten())),
        BadModel,
        "does not take images",
    ),
    "a student of a tuple": (lambda: trained(TENSOR, LABELS, Pair()), BadModel, "the student answers with a tuple"),
    "a teacher of other classes": (
        lambda: trained(TENSOR, LABELS, teacher=nn.Sequential(nn.Flatten(), nn.Linear(16, 7))),
        BadModel,
        "the student gives 3 logits, the teacher 7",
    ),
}


@pytest.mark.parametrize(("call", "error", "said"), IN_TRAINING.values(), ids=IN_TRAINING)
def test_a_batch_that_does_not_fit_a_method_is_refused(call, error, said):
    with pytest.raises(error, match=said) as caught:
        call()
    assert caught.value.hint


MISTYPED = {
    "a keyword": (lambda out: ep.verify(MODEL, X, Y, epss=EPS), "eps"),
    "attacks of attack": (lambda out: ep.attack(MODEL, X, Y, attacks="fgsm"), "attack"),
    "attacks": (lambda out: ep.verify(MODEL, X, Y, attacks="pgd20"), "pgd-20"),
    "attack": (lambda out: ep.attack(MODEL, X, Y, attack="fgms"), "fgsm"),
    "backend": (lambda out: ep.verify(MODEL, X, Y, backend="openvin"), "openvino"),
    "provider": (lambda out: ep.verify(MODEL, X, Y, provider="cpus"), "cpu"),
    "precisions": (lambda out: ep.export(network(), evaluation=(X, Y), out=out, precisions="fp23"), "fp32"),
    "an option of a method": (lambda out: ep.methods.AdaAD(network(), network(), alhpa=1), "alpha"),
}


@pytest.mark.parametrize(("call", "meant"), MISTYPED.values(), ids=MISTYPED)
def test_a_mistyped_name_is_refused_with_the_one_meant(call, meant, tmp_path):
    with pytest.raises(UsageFault, match=rf"did you mean {meant}\?$"):
        call(tmp_path / "bundle")


@pytest.mark.parametrize("then", ["images of 0 to 255", "bytes", "labels from 1", "labels in floats"])
def test_a_later_batch_that_does_not_fit_is_refused_too(then):
    method = ep.methods.PGDAT(network(), steps=1)
    method.loss(TENSOR, LABELS)
    batch = {
        "images of 0 to 255": (255 * TENSOR, LABELS),
        "bytes": ((255 * TENSOR).byte(), LABELS),
        "labels from 1": (TENSOR, LABELS + 1),
        "labels in floats": (TENSOR, LABELS.float()),
    }[then]
    with pytest.raises(BadData):
        method.loss(*batch)
    method.loss(TENSOR, LABELS)
