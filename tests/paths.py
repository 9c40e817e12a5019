"""Where the project and what it stores for its tests lie."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny-bundle"
PROGRAM = (sys.executable, "-m", "edgeproof")
"""The program as a process of its own, also where its packages are found without being installed."""
