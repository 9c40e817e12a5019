"""`--batch auto`: what is asked at once is the device's choice; request and command say what came of it."""

import shlex

import numpy as np
import pytest

from runtime.errors import OutOfMemory
from runtime.records.report import load_report
from runtime.records.request import Request
from runtime.session import Batching
from runtime.spec import ThreatModel
from runtime.terminal.progress import Silent
from runtime.verdict.case import LARGEST_BATCH, prepare_case
from runtime.verdict.options import VerifyOptions
from runtime.verdict.subject import Subject
from tests.command_line import edgeproof
from tests.fakes import LinearSession
from tests.tiny import EPS, SHAPE


class Worth(LinearSession):
    """Worth being asked for as many images at once as its images have values."""

    def batching(self, image):
        return Batching(int(np.prod(image)))


def asked(linear, **options):
    session, images = linear
    worth = Worth(session.weight, session.bias)
    subject = Subject(worth, "tiny", ("a", "b", "c"), SHAPE, images, "edgeproof it", ThreatModel(eps=EPS))
    case = prepare_case(subject, VerifyOptions(attacks=("fgsm",), **options))
    case.attack(Silent())
    return case.request, worth


def test_the_device_chooses_the_batch_unless_a_number_is_asked_for(linear):
    for options, batch in (({}, int(np.prod(SHAPE))), ({"batch": "auto"}, int(np.prod(SHAPE))), ({"batch": 7}, 7)):
        request, session = asked(linear, **options)
        assert request.batch == batch
        words = shlex.split(request.command)
        assert words[words.index("--batch") + 1] == str(batch)
        assert max(session.calls) == min(batch, 60)


class Small(Worth):
    """A GPU that holds so many images; notes the sizes that fitted."""

    def __init__(self, weight, bias, holds):
        super().__init__(weight, bias)
        self.holds, self.fitted = holds, []

    def _logits(self, x):
        if len(x) > self.holds:
            raise OutOfMemory("the GPU is full")
        self.fitted.append(len(x))
        return super()._logits(x)

    def batching(self, image):
        return Batching(512, full=True)


@pytest.mark.parametrize(("holds", "largest"), [(40, 32), (12, 8), (1, 1)])
def test_where_memory_is_short_what_fills_a_batch_up_is_cut_too_and_the_report_says_what_was_asked(
    linear, holds, largest
):
    session, images = linear
    small = Small(session.weight, session.bias, holds)
    subject = Subject(small, "tiny", ("a", "b", "c"), SHAPE, images, "edgeproof it", ThreatModel(eps=EPS))
    case = prepare_case(subject, VerifyOptions(attacks=("fgsm",)))
    assert case.attack(Silent()).circumstances.device[LARGEST_BATCH] == max(small.fitted) == largest


class Unfused(Worth):
    """Takes more memory without its engine's optimisations: so it holds a dozen images."""

    def unoptimised(self):
        return lambda: Small(self.weight, self.bias, 12)


def test_where_memory_is_short_for_what_is_asked_without_optimisations_alone_the_report_says_so_too(linear):
    session, images = linear
    unfused = Unfused(session.weight, session.bias)
    subject = Subject(unfused, "tiny", ("a", "b", "c"), SHAPE, images, "edgeproof it", ThreatModel(eps=EPS))
    findings = prepare_case(subject, VerifyOptions(attacks=("fgsm",))).attack(Silent())
    assert findings.outcome.fusion.same_prediction == 60
    assert findings.circumstances.device[LARGEST_BATCH] == 8


def test_on_the_cpu_a_run_that_asks_for_no_batch_is_the_same_as_ever(bundle, tmp_path):
    for name, words in (("auto", []), ("number", ["--batch", 64])):
        assert edgeproof("verify", bundle, "--attacks", "fgsm", "--out", tmp_path / name, *words).exit_code == 0
    auto, number = (load_report(tmp_path / name) for name in ("auto", "number"))
    assert auto.request.batch == number.request.batch == 64
    assert auto.request_sha256 == number.request_sha256


@pytest.mark.parametrize("batch", ["0", "many", "-3", "1.5"])
def test_what_is_neither_a_number_of_images_nor_auto_is_a_usage_error(bundle, batch):
    result = edgeproof("verify", bundle, "--batch", batch)
    assert (result.exit_code, "'--batch': " in result.stderr) == (2, True), result.stderr
    assert batch in ("0", "-3") or f"'{batch}' is not a valid number of images, nor auto" in result.stderr


def test_the_help_shows_how_auto_is_written():
    shown = " ".join(edgeproof("verify", "--help").stdout.split())
    assert "--batch [N|auto] Images in one pass; on a CPU no figure" in shown
    assert "default: auto" in shown


def test_a_request_holds_a_number():
    assert Request.model_json_schema()["properties"]["batch"] == {
        "default": 64, "exclusiveMinimum": 0, "title": "Batch", "type": "integer",
    }  # fmt: skip
