"""Checks that the images judged are distinct: a copy proves nothing that its original did not.

Intervals, the claimed number of images and the power of checks all assume images that were drawn independently. Copies
make all three look better than they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.records.report import CheckResult
from runtime.spec import Gate
from runtime.suite.evidence import UNKNOWN
from runtime.words import percent

if TYPE_CHECKING:
    from runtime.records.request import Request

MOST_COPIES = 0.01
"""The largest fraction of the images judged that may be copies of others; collected sets have a few."""


def check_copies(request: Request, pixels: Any) -> CheckResult:
    """Return the check `repeated-images`. It blocks if the run has a gate; otherwise it is a note.

    Args:
        request: says whether the run has a gate.
        pixels: int64 [N], the digest of each image's pixels (`Evidence.pixels`).

    """
    n, distinct = len(pixels), len(np.unique(pixels))
    found, hint = n - distinct > MOST_COPIES * n, "judge each image once"
    message = f"{distinct} of the {n} images judged are distinct"
    if (pixels == UNKNOWN).any():
        found, hint = True, "run the shards again"
        message = "an earlier version made one of the shards, and did not record which images are copies"
    elif found:
        message += f": {percent(1 - distinct / n)} are copies, which add no evidence"
    return CheckResult(
        check="repeated-images",
        blocking=request.gate != Gate(),
        state="found" if found else "quiet",
        message=message,
        hint=hint,
    )
