"""What a run says of the processor's arithmetic before its first attack."""

import pytest

from runtime.commands import judging
from tests.command_line import edgeproof
from tests.runtime.suite.test_plan import quantised_bundle


@pytest.mark.parametrize(
    ("precision", "lacks_vnni", "said"), [("int8", True, True), ("int8", False, False), ("fp32", True, False)]
)
def test_a_run_of_int8_says_that_sums_can_overflow_without_vnni(precision, lacks_vnni, said, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "int8_overflows", lambda: lacks_vnni)
    options = ("--precision", precision, "--attacks", "fgsm", "--n", "20", "--no-gate")
    result = edgeproof("verify", quantised_bundle(tmp_path / "bundle"), *options, "--out", tmp_path / "run")
    before = result.stderr.partition("clean: ")[0]
    assert ("int8 sums can overflow on this processor, which lacks VNNI" in before) is said
