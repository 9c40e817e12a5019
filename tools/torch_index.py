"""Prints the package index that is given, if PyTorch can come from there.

    python -m tools.torch_index https://download.pytorch.org/whl/cpu

It prints nothing if pip is set to another index than PyPI or to files, as behind a company's mirror, or if the index
does not answer. The Makefile asks before anything is installed, so this needs no package.
"""

import subprocess
import sys
from urllib.request import urlopen

PATIENCE = 5
"""Seconds to wait for an answer."""
ELSEWHERE = ("index", "find-links")
"""Words in pip's settings that send it to other places than PyPI."""


def is_usable(index: str) -> bool:
    """Return whether pip takes packages from PyPI, and `index` has PyTorch."""
    settings = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(settings, capture_output=True, text=True, check=False)
    if told.returncode or any(word in told.stdout for word in ELSEWHERE):
        return False
    try:
        with urlopen(f"{index}/torch/", timeout=PATIENCE):
            return True
    except OSError:  # URLError, and what a connection that breaks raises
        return False


if __name__ == "__main__" and is_usable(sys.argv[1]):
    print(sys.argv[1])
