"""Where the project and what it stores for its tests lie."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny-bundle"
