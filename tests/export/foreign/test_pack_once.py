"""`pack` prepares each graph once, opens it once for each use, and leaves nothing open."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.export.plain import X, network, plain
from tests.export.strangers import command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.export.conftest import Work

ORIGINAL, ADAPTED, FORWARD, GRADIENT = 1, 1, 2, 1
"""Sessions of each graph; a classifier has two, one that takes a batch whole and one that takes pieces side by side."""
FP32 = ORIGINAL + ADAPTED + FORWARD + GRADIENT


@pytest.mark.parametrize(
    ("options", "prepared", "opened"),
    [
        ([], 1, FP32),
        (["--gradient", "none"], 1, FP32 - GRADIENT),
        (["--precision", "fp32,fp16"], 2, FP32 + ADAPTED + FORWARD + GRADIENT),
        (["--precision", "fp32,int8"], 2, FP32 + ADAPTED + FORWARD + GRADIENT),
        (["--precision", "int8,fp16,fp32", "--keep-fp16", "none"], 3, FP32 + 2 * (ADAPTED + FORWARD + GRADIENT)),
    ],
)
def test_each_graph_is_prepared_once_and_opened_once_for_each_use(
    options: list[str], prepared: int, opened: int, data: Path, save: Any, tmp_path: Path, work: Work
) -> None:
    more = np.random.default_rng(9).random((40, *X.shape[1:]), dtype=np.float32)
    wrong = network(torch.from_numpy(more)).argmin(dim=1).numpy()  # int8 has nothing to lose, so no layer is kept
    np.savez(tmp_path / "train.npz", x=more, y=wrong)
    calibration = ["--calibration", tmp_path / "train.npz"] if "int8" in " ".join(options) else []
    result = command("pack", save(plain()), "--data", data, "--out", tmp_path / "bundle", *options, *calibration)
    assert result.exit_code == 0, result.output
    assert (len(work.prepared), len(set(work.prepared))) == (prepared, prepared)
    assert len(work.opened) == opened
    assert max(Counter(work.opened).values()) == FORWARD
    assert work.still_open == 0
