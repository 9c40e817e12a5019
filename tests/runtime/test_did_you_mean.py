"""A mistyped name is refused with the name that was probably meant."""

import pytest

from runtime.words import did_you_mean
from tests.command_line import edgeproof

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.mark.parametrize(
    ("given", "meant"), [("verfy", "verify"), ("PGD-20", "pgd-20"), ("AdaAD", "adaad"), ("nothing", None), (None, None)]
)
def test_the_closest_name_is_meant_if_one_is_close(given, meant):
    known = ("verify", "pgd-20", "adaad")
    assert did_you_mean(given, known) == (f"; did you mean {meant}?" if meant else "")


MISTYPED = {
    "verfy": (["verfy", "x"], "verify"),
    "--attacks": (["verify", "BUNDLE", "--attacks", "pgd20"], "pgd-20"),
    "--backend": (["verify", "BUNDLE", "--backend", "openvin"], "openvino"),
    "--provider": (["verify", "BUNDLE", "--provider", "tensort"], "tensorrt"),
    "--on": (["verify", "BUNDLE", "--on", "ort:cuda12"], "cuda"),
    "--gradient": (["verify", "BUNDLE", "--gradient", "aut"], "auto"),
    "--data": (["verify", "BUNDLE", "--data", "cifar-10"], "cifar10"),
    "--format of report": (["report", "BUNDLE", "--format", "htm"], "html"),
    "--format of compare": (["compare", "BUNDLE", "BUNDLE", "--format", "jsn"], "json"),
}


@pytest.mark.parametrize(("command", "meant"), MISTYPED.values(), ids=MISTYPED)
def test_a_mistyped_name_on_the_command_line_is_a_usage_error_with_the_one_meant(bundle, command, meant):
    result = edgeproof(*(bundle if word == "BUNDLE" else word for word in command))
    assert result.exit_code == 2, result.output
    assert f"did you mean {meant}?" in result.stderr


def test_a_mistyped_precision_of_a_bundle_is_asked_back(bundle):
    result = edgeproof("verify", bundle, "--precision", "fp23")
    assert (result.exit_code, "did you mean fp32?" in result.stderr) == (3, True)
